#include "tools/bench/mounts.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <thread>

#include "store/base/mountinfo.h"
#include "store/base/remove_tree.h"

namespace kilnfs::bench {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kStep{2};
constexpr int kStartSteps = 15'000;  // 30 s, for a store that has a lot to look at
constexpr int kEndMs = 30'000;

std::vector<std::string> mountPoints() {
  std::vector<std::string> found;
  std::ifstream in("/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    found.push_back(mountLine(line).point);
  }
  return found;
}

// Somebody may still look into a mount for a moment after its last user has ended.
void unmount(const std::string& path) {
  constexpr int kTries = 50;
  for (int i = 0; i < kTries && isMounted(path); ++i) {
    if (::umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) return;
    if (errno != EBUSY) break;
    std::this_thread::sleep_for(milliseconds(20));
  }
  if (!isMounted(path)) return;
  if (::umount2(path.c_str(), UMOUNT_NOFOLLOW | MNT_DETACH) == 0) return;
  // An ordinary user's; started directly, since an interrupted run starts nothing more.
  auto helper = Process::start({"fusermount3", "-u", "-z", path}, {});
  if (helper) helper->wait();
}

bool hasEnded(int pidfd, int timeoutMs) {
  struct pollfd wait = {pidfd, POLLIN, 0};
  int found = 0;
  do {
    found = ::poll(&wait, 1, timeoutMs);
  } while (found < 0 && errno == EINTR);
  return found > 0;
}

std::string textOf(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

bool isMounted(const std::string& path) {
  const auto points = mountPoints();
  return std::find(points.begin(), points.end(), path) != points.end();
}

void unmountBelow(const std::string& path) {
  auto points = mountPoints();
  for (auto point = points.rbegin(); point != points.rend(); ++point) {
    if (point->starts_with(path + "/")) unmount(*point);
  }
}

Expected<Mounted> Mounted::overlay(const std::string& lower, const std::string& upper,
                                   const std::string& work, const std::string& at) {
  const std::string options = fmt::format("lowerdir={},upperdir={},workdir={}", lower, upper, work);
  if (::mount("overlay", at.c_str(), "overlay", 0, options.c_str()) != 0) {
    return failErrno("mounting an overlay");
  }
  return Mounted(at);
}

Expected<Mounted> Mounted::loop(const std::string& type, const std::string& image, size_t bytes,
                                const std::string& at) {
  const UniqueFd file(::open(image.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file.valid()) return failErrno(image);
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) return failErrno(image);
  if (auto made = runOk({"mkfs." + type, "-q", image}); !made) return Failure(made.error());
  if (auto mounted = runOk({"mount", "-t", type, "-o", "loop", image, at}); !mounted) {
    return Failure(mounted.error());
  }
  return Mounted(at);
}

Mounted::~Mounted() {
  if (!path_.empty()) unmount(path_);
}

Expected<Served> Served::start(const Argv& argv, const std::string& at, const std::string& log) {
  const UniqueFd out(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!out.valid()) return failErrno(log);
  Process::Options options;
  options.stdoutFd = options.stderrFd = out.get();
  auto process = Process::start(argv, options);
  if (!process) return Failure(process.error());
  Served served(std::move(*process), at);
  for (int i = 0; i < kStartSteps; ++i) {
    if (isMounted(at)) return served;
    if (interrupted()) return fail(EINTR, "interrupted");
    if (hasEnded(served.process_->pidfd(), 0)) break;
    std::this_thread::sleep_for(kStep);
  }
  return fail(EIO, fmt::format("{} did not mount {}: {}", argv[0], at, textOf(log)));
}

void Served::end() {
  if (!process_ || process_->pid() <= 0) return;
  process_->signal(SIGTERM);
  if (!hasEnded(process_->pidfd(), kEndMs)) process_->signal(SIGKILL);
  process_->wait();
  process_.reset();
  unmount(path_);
}

Status removeAll(const std::string& path) {
  return removeTree(AT_FDCWD, path);
}

Status makeEmpty(const std::vector<std::string>& directories) {
  for (const auto& directory : directories) {
    if (auto gone = removeAll(directory); !gone) return gone;
    if (::mkdir(directory.c_str(), 0755) != 0) return failErrno(directory);
  }
  return {};
}

}  // namespace kilnfs::bench
