#include "store/store_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <chrono>
#include <string_view>
#include <thread>

#include "store/base/mountinfo.h"

namespace kilnfs {
namespace {

// Whoever was unmounted a moment ago is still ending, and is waited for.
Status lockNow(int fd, const std::string& root) {
  constexpr int kTries = 500;
  constexpr std::chrono::milliseconds kPause{20};
  const std::string_view before = ", mounted at ";
  std::string by;
  for (int i = 0; i < kTries; ++i) {
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return {};
    char owner[4200] = {};
    const ssize_t n = ::pread(fd, owner, sizeof owner - 1, 0);
    by = n > 0 ? fmt::format(" by {}", owner) : "";
    const size_t at = by.find(before);
    if (at == std::string::npos || isMounted("fuse.kilnfs", by.substr(at + before.size()))) {
      return fail(EBUSY, fmt::format("the store {} is in use{}: unmount it there first", root, by));
    }
    std::this_thread::sleep_for(kPause);
  }
  return fail(EBUSY,
              fmt::format("the store {} is in use{} until now, which is still ending", root, by));
}

}  // namespace

Expected<UniqueFd> takeLock(const Layout& layout, const std::string& mount) {
  UniqueFd fd(::openat(layout.state().fd.get(), "kilnfs.lock",
                       O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!fd.valid()) return failErrno("open " + layout.state().path + "/kilnfs.lock");
  if (auto locked = lockNow(fd.get(), layout.root()); !locked) return Failure(locked.error());
  const std::string line = fmt::format("process {}{}", ::getpid(),
                                       mount.empty() ? "" : fmt::format(", mounted at {}", mount));
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), line.data(), line.size(), 0) != static_cast<ssize_t>(line.size())) {
    return failErrno("write " + layout.state().path + "/kilnfs.lock");
  }
  return fd;
}

}  // namespace kilnfs
