// Many small files: what each call costs.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <vector>

#include "store/base/fd.h"
#include "tools/bench/command.h"
#include "tools/bench/random.h"
#include "tools/bench/step.h"

namespace kilnfs::bench {
namespace {

constexpr size_t kBytes = 4096;
constexpr size_t kFilesInDirectory = 100;

using Names = std::vector<std::string>;

Status timed(const std::string& figure, const Names& names,
             const std::function<bool(const std::string&)>& call) {
  const Stopwatch watch;
  for (const auto& name : names) {
    if (!call(name)) return failErrno(figure + " " + name);
  }
  tellValue("small." + figure, watch.seconds());
  return {};
}

bool create(const std::string& name, const std::string& content) {
  const UniqueFd fd(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  return fd.valid() &&
         ::write(fd.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size());
}

bool hasSize(const std::string& name) {
  struct stat st = {};
  return ::stat(name.c_str(), &st) == 0 && st.st_size == static_cast<off_t>(kBytes);
}

bool holds(const std::string& name, const std::string& content) {
  char block[kBytes];
  const UniqueFd fd(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  return fd.valid() && ::read(fd.get(), block, kBytes) == static_cast<ssize_t>(kBytes) &&
         content == std::string_view(block, kBytes);
}

Status removeDirectories(const Names& directories) {
  for (const auto& directory : directories) {
    if (::rmdir(directory.c_str()) != 0) return failErrno(directory);
  }
  return {};
}

}  // namespace

Status stepSmall(const StepOptions& options) {
  const std::string top = "kiln-bench.small";
  if (::mkdir(top.c_str(), 0755) != 0) return failErrno(top);
  Names directories;
  for (size_t i = 0; i < (options.files + kFilesInDirectory - 1) / kFilesInDirectory; ++i) {
    directories.push_back(fmt::format("{}/d{:03}", top, i));
    if (::mkdir(directories.back().c_str(), 0755) != 0) return failErrno(directories.back());
  }
  Names names;
  Names moved;
  for (size_t i = 0; i < options.files; ++i) {
    names.push_back(fmt::format("{}/f{:06}", directories[i % directories.size()], i));
    moved.push_back(names.back() + ".new");
  }
  std::string content;
  fillText(content, kBytes, 3);
  Status done =
      timed("create", names, [&](const std::string& name) { return create(name, content); });
  if (done) done = timed("stat", names, hasSize);
  if (done) {
    done = timed("read", names, [&](const std::string& name) { return holds(name, content); });
  }
  if (done) {
    done = timed("rename", names, [](const std::string& name) {
      return ::rename(name.c_str(), (name + ".new").c_str()) == 0;
    });
  }
  if (done) {
    done =
        timed("unlink", moved, [](const std::string& name) { return ::unlink(name.c_str()) == 0; });
  }
  if (!done) return done;
  directories.push_back(top);
  return removeDirectories(directories);
}

}  // namespace kilnfs::bench
