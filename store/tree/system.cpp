#include "store/tree/system.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace kilnfs {

bool plainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

Expected<UniqueFd> openBeneath(int dirFd, const std::string& path, int flags) {
  struct open_how how = {};
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  for (;;) {
    const long fd = ::syscall(SYS_openat2, dirFd, path.c_str(), &how, sizeof how);
    if (fd >= 0) return UniqueFd(static_cast<int>(fd));
    if (errno != EAGAIN && errno != EINTR) return fail(errno);
  }
}

Expected<UniqueFd> reopen(int fd, int flags) {
  int copy;
  if ((flags & O_PATH) != 0) {
    copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  } else {
    copy = ::open(procPath(fd).c_str(), (flags & ~O_NOFOLLOW) | O_CLOEXEC);
  }
  if (copy < 0) return fail(errno);
  return UniqueFd(copy);
}

Failure undone(int dirFd, const std::string& name, int unlinkFlags) {
  const Failure failure = fail(errno);
  ::unlinkat(dirFd, name.c_str(), unlinkFlags);
  return failure;
}

mode_t setIdOf(const struct stat& st) {
  mode_t bits = st.st_mode & S_ISUID;
  if ((st.st_mode & S_IXGRP) != 0) bits |= st.st_mode & S_ISGID;
  return bits;
}

void dropSetId(int fd) {
  struct stat st;
  if (::fstat(fd, &st) != 0) return;
  const mode_t drop = setIdOf(st);
  // By its path: the descriptor may be O_PATH.
  if (drop != 0) ::chmod(procPath(fd).c_str(), st.st_mode & ~drop & 07777);
}

std::string procPath(int fd) {
  return "/proc/self/fd/" + std::to_string(fd);
}

}  // namespace kilnfs
