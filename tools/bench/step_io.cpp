// Reading and writing one large file.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "store/base/fd.h"
#include "tools/bench/command.h"
#include "tools/bench/random.h"
#include "tools/bench/step.h"
#include "tools/bench/tree.h"

namespace kilnfs::bench {
namespace {

constexpr size_t kBlock = 128 << 10;
constexpr size_t kPage = 4096;
constexpr int kTimes = 3;  // the best of so many counts
constexpr const char* kName = "kiln-bench.data";

Expected<UniqueFd> open(const std::string& name, int flags) {
  UniqueFd fd(::open(name.c_str(), flags | O_CLOEXEC, 0644));
  if (!fd.valid()) return failErrno(name);
  return fd;
}

Status best(const std::string& figure, const std::function<Status()>& once) {
  double least = 0;
  for (int i = 0; i < kTimes; ++i) {
    const Stopwatch watch;
    if (auto done = once(); !done) return done;
    const double seconds = watch.seconds();
    least = i == 0 ? seconds : std::min(least, seconds);
  }
  tellValue(figure, least);
  return {};
}

Status readSequentially(int fd, size_t bytes) {
  std::vector<char> block(kBlock);
  for (size_t at = 0; at < bytes; at += kBlock) {
    const auto want = std::min(kBlock, bytes - at);
    if (::pread(fd, block.data(), want, static_cast<off_t>(at)) != static_cast<ssize_t>(want)) {
      return failErrno("sequential read");
    }
  }
  return {};
}

Status readRandomly(int fd, size_t bytes, size_t operations) {
  std::vector<char> page(kPage);
  Random random(1);
  for (size_t i = 0; i < operations; ++i) {
    const auto at = static_cast<off_t>(random.below(bytes / kPage) * kPage);
    if (::pread(fd, page.data(), kPage, at) != static_cast<ssize_t>(kPage)) {
      return failErrno("random read");
    }
  }
  return {};
}

Status readBoth(int fd, size_t bytes, size_t operations, const std::string& suffix) {
  if (auto done = readSequentially(fd, bytes); !done) return done;  // to warm up
  if (auto done = best("io.read-" + suffix, [&] { return readSequentially(fd, bytes); }); !done) {
    return done;
  }
  return best("io.random-read-" + suffix, [&] { return readRandomly(fd, bytes, operations); });
}

Status writeSequentially(size_t bytes) {
  const auto fd = open(kName, O_WRONLY | O_CREAT | O_EXCL);
  if (!fd) return Failure(fd.error());
  const std::vector<char> block(kBlock, 'x');
  for (size_t at = 0; at < bytes; at += kBlock) {
    const auto want = std::min(kBlock, bytes - at);
    if (::write(fd->get(), block.data(), want) != static_cast<ssize_t>(want)) {
      return failErrno("sequential write");
    }
  }
  return {};
}

Status writeRandomly(int fd, size_t bytes, size_t operations) {
  const std::vector<char> page(kPage, 'y');
  Random random(2);
  for (size_t i = 0; i < operations; ++i) {
    const auto at = static_cast<off_t>(random.below(bytes / kPage) * kPage);
    if (::pwrite(fd, page.data(), kPage, at) != static_cast<ssize_t>(kPage)) {
      return failErrno("random write");
    }
  }
  return {};
}

}  // namespace

Status stepRead(const StepOptions& options) {
  const auto fd = open(fmt::format("{}0", kBigFile), O_RDONLY);
  if (!fd) return Failure(fd.error());
  struct stat st = {};
  if (::fstat(fd->get(), &st) != 0) return failErrno("fstat");
  return readBoth(fd->get(), static_cast<size_t>(st.st_size), options.operations, "base");
}

Status stepWrite(const StepOptions& options) {
  // The file goes before the clock runs: what is measured is the writing of a new file.
  double least = 0;
  for (int i = 0; i < kTimes; ++i) {
    ::unlink(kName);
    const Stopwatch watch;
    if (auto done = writeSequentially(options.bytes); !done) return done;
    least = i == 0 ? watch.seconds() : std::min(least, watch.seconds());
  }
  tellValue("io.write", least);
  {
    const auto fd = open(kName, O_RDWR);
    if (!fd) return Failure(fd.error());
    const auto random = best("io.random-write", [&] {
      return writeRandomly(fd->get(), options.bytes, options.operations);
    });
    if (!random) return random;
  }
  const auto fd = open(kName, O_RDONLY);
  if (!fd) return Failure(fd.error());
  if (auto done = readBoth(fd->get(), options.bytes, options.operations, "new"); !done) return done;
  if (::unlink(kName) != 0) return failErrno("unlink");
  return {};
}

}  // namespace kilnfs::bench
