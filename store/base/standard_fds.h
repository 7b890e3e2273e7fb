// The descriptors that a program takes for granted.
#pragma once

#include <fcntl.h>
#include <unistd.h>

namespace kilnfs {

/// Fills those of 0 to 2 that were closed when the program was started, so that none of its files
/// gets their number: what is said on stdout would go into that file. They are open the wrong way
/// round: reading and writing fail with EBADF, as if they were still closed. To be called before
/// anything is opened. False: it can't be had.
inline bool holdStandardFds() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    // The lowest number that is free is this one, since those below it are taken by now. Not
    // O_CLOEXEC: whatever is executed is to be as safe.
    if (::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) return false;
  }
  return true;
}

}  // namespace kilnfs
