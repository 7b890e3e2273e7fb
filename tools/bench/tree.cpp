#include "tools/bench/tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <numbers>
#include <vector>

#include "store/base/fd.h"
#include "tools/bench/command.h"
#include "tools/bench/random.h"

namespace kilnfs::bench {
namespace {

constexpr size_t kDeepest = 8;
constexpr time_t kEpoch = 1'600'000'000;
constexpr uint64_t kTimeSpan = 50'000'000;
constexpr double kSigma = 1.2;  // of the sizes
constexpr double kLargest = 8 << 20;
constexpr size_t kSymlinkEvery = 33;   // a symbolic link for so many files
constexpr size_t kHardLinkEvery = 50;  // likewise
const std::array<std::string, 5> kOddNames = {"with space", "-leading-dash", "uml\xc3\xa4ut",
                                              "quote'\"q", std::string(200, 'a')};

// What makes the names and sizes of a tree as they are; contents have generators of their own.
class TreeMaker {
 public:
  TreeMaker(std::string root, const TreeShape& shape)
      : root_(std::move(root)), shape_(shape), random_(shape.seed) {}

  Status make() {
    if (::mkdir(root_.c_str(), 0755) != 0) return failErrno(root_);
    if (auto made = makeDirectories(); !made) return made;
    for (size_t i = 0; i < shape_.files; ++i) {
      if (interrupted()) return fail(EINTR, "interrupted");
      if (auto made = makeFile(i); !made) return made;
    }
    if (auto made = makeLinks(); !made) return made;
    return setTimes();
  }

 private:
  struct Directory {
    std::string path;  // below the root; empty: the root
    size_t depth = 0;
  };
  std::string full(const std::string& path) const { return root_ + "/" + path; }
  const Directory& anyDirectory() { return directories_[random_.below(directories_.size())]; }
  static std::string in(const Directory& directory, const std::string& name) {
    return directory.path.empty() ? name : directory.path + "/" + name;
  }

  Status makeDirectories() {
    directories_.push_back({});
    for (size_t i = 1; i < shape_.directories; ++i) {
      const Directory* above = &anyDirectory();
      while (above->depth >= kDeepest) above = &anyDirectory();
      Directory made = {in(*above, fmt::format("d{:04}", i)), above->depth + 1};
      if (::mkdir(full(made.path).c_str(), 0755) != 0) return failErrno(full(made.path));
      directories_.push_back(std::move(made));
    }
    return {};
  }

  size_t anySize(size_t index) {
    if (index % 100 == 99) return 0;
    const double u = random_.unit();
    const double v = random_.unit();
    const double normal = std::sqrt(-2 * std::log(1 - u)) * std::cos(2 * std::numbers::pi * v);
    const double size = static_cast<double>(shape_.medianBytes) * std::exp(kSigma * normal);
    return static_cast<size_t>(std::min(size, kLargest));
  }

  std::string anyName(size_t index) {
    if (index < shape_.bigFiles) return fmt::format("{}{}", kBigFile, index);
    const size_t other = index - shape_.bigFiles;
    if (other == 0) return kSomeFile;
    const std::string name = other <= kOddNames.size()
                                 ? kOddNames[other - 1]
                                 : fmt::format("f{:06}.{}", index, kSuffixes[random_.below(5)]);
    return in(anyDirectory(), name);
  }

  Status makeFile(size_t index) {
    const std::string path = anyName(index);
    const bool big = index < shape_.bigFiles;
    std::string content;
    // Spread over the tree; each kind of file has its turn.
    if (index % (shape_.files / kNeedleFiles + 1) == 7 % shape_.files) content = kNeedle;
    fillText(content, big ? shape_.bigBytes : anySize(index), shape_.seed * 1'000'003 + index);
    const UniqueFd fd(
        ::open(full(path).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, anyMode()));
    if (!fd.valid()) return failErrno(full(path));
    if (::write(fd.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size())) {
      return failErrno(full(path));
    }
    files_.push_back(path);
    return {};
  }

  mode_t anyMode() {
    const double share = random_.unit();
    return share < 0.15 ? 0755 : share < 0.18 ? 0600 : share < 0.2 ? 0444 : 0644;
  }

  Status makeLinks() {
    for (size_t i = 0; i < shape_.files / kSymlinkEvery; ++i) {
      // Relative to a file, absolute, and dangling ones.
      const std::string& file = files_[random_.below(files_.size())];
      const Directory& directory = anyDirectory();
      std::string target;
      for (size_t up = 0; up < directory.depth; ++up) target += "../";
      target += i % 10 == 9 ? fmt::format("missing-{}", i) : file;
      if (i % 10 == 8) target = "/" + file;
      const std::string link = full(in(directory, fmt::format("s{:05}", i)));
      if (::symlink(target.c_str(), link.c_str()) != 0) return failErrno(link);
    }
    for (size_t i = 0; i < shape_.files / kHardLinkEvery; ++i) {
      const std::string file = full(files_[random_.below(files_.size())]);
      const std::string link = full(in(anyDirectory(), fmt::format("h{:05}", i)));
      if (::link(file.c_str(), link.c_str()) != 0) return failErrno(link);
    }
    return {};
  }

  Status setTime(const std::string& path) {
    const time_t when = kEpoch + static_cast<time_t>(random_.below(kTimeSpan));
    const struct timespec times[2] = {{when, 0}, {when, 0}};
    if (::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0)
      return failErrno(path);
    return {};
  }

  // Last, and directories after what they hold, so that nothing changes them any more.
  Status setTimes() {
    for (const auto& file : files_) {
      if (auto set = setTime(full(file)); !set) return set;
    }
    for (auto at = directories_.rbegin(); at != directories_.rend(); ++at) {
      if (auto set = setTime(full(at->path)); !set) return set;
    }
    return {};
  }

  static constexpr std::array<const char*, 5> kSuffixes = {"txt", "so", "h", "py", "dat"};
  const std::string root_;
  const TreeShape shape_;
  Random random_;
  std::vector<Directory> directories_;
  std::vector<std::string> files_;
};

Status writeText(const std::string& path, const std::string& text) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd.valid()) return failErrno(path);
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return failErrno(path);
  }
  return {};
}

std::string sourceText(size_t index) {
  std::string text =
      "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include \"all.h\"\n";
  constexpr size_t kFunctions = 40;
  for (size_t f = 0; f < kFunctions; ++f) {
    text += fmt::format(
        "static long part{0}(const char *s, long n) {{\n"
        "  char line[256];\n  long sum = {1};\n"
        "  for (long i = 0; i < n; i++) {{\n"
        "    snprintf(line, sizeof line, \"%ld %s {0}\", i, s);\n"
        "    sum = sum * 31 + (long)strlen(line) + atol(line);\n  }}\n  return sum;\n}}\n",
        f, index * kFunctions + f);
  }
  text += fmt::format("long unit{}(const char *s) {{\n  long sum = 0;\n", index);
  for (size_t f = 0; f < kFunctions; ++f) text += fmt::format("  sum += part{}(s, {});\n", f, f);
  return text + "  return sum;\n}\n";
}

}  // namespace

Status makeTree(const std::string& root, const TreeShape& shape) {
  return TreeMaker(root, shape).make();
}

Status makeProgram(const std::string& root, size_t sources) {
  std::string header;
  std::string calls;
  std::string objects;
  for (size_t i = 0; i < sources; ++i) {
    header += fmt::format("long unit{}(const char *s);\n", i);
    calls += fmt::format("  sum += unit{}(argv[0]);\n", i);
    objects += fmt::format(" unit{}.o", i);
    if (auto made = writeText(fmt::format("{}/unit{}.c", root, i), sourceText(i)); !made)
      return made;
  }
  if (auto made = writeText(root + "/all.h", header); !made) return made;
  const std::string body =
      "#include <stdio.h>\n#include \"all.h\"\nint main(int argc, char **argv) {\n"
      "  long sum = argc;\n" +
      calls + "  printf(\"%ld\\n\", sum);\n  return 0;\n}\n";
  if (auto made = writeText(root + "/main.c", body); !made) return made;
  return writeText(root + "/Makefile",
                   "CC = cc\nCFLAGS = -O1\nprogram: main.o" + objects +
                       "\n\tcc -o $@ $^\n%.o: %.c all.h\n\t$(CC) $(CFLAGS) -c -o "
                       "$@ $<\n");
}

}  // namespace kilnfs::bench
