#include "tools/kilnfs/background.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace kilnfs {
namespace {

// The child says one byte when it is ready. If it ends first, it has said why on stderr.
[[noreturn]] void waitForChild(int fd, pid_t child, const std::string& mountpoint) {
  char byte;
  ssize_t n;
  do {
    n = ::read(fd, &byte, 1);
  } while (n < 0 && errno == EINTR);
  if (n != 1) {
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
      fmt::print(stderr, "kilnfs: the daemon was killed by signal {}\n", WTERMSIG(status));
    }
    ::_exit(WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : 1);
  }
  struct stat st;
  if (::stat(mountpoint.c_str(), &st) != 0) {
    fmt::print(stderr, "kilnfs: {} does not answer: {}\n", mountpoint, std::strerror(errno));
    ::_exit(1);
  }
  ::_exit(0);
}

}  // namespace

Background goToBackground(const std::string& mountpoint) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    fmt::print(stderr, "kilnfs: pipe: {}\n", std::strerror(errno));
    ::_exit(1);
  }
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) {
    fmt::print(stderr, "kilnfs: fork: {}\n", std::strerror(errno));
    ::_exit(1);
  }
  if (child > 0) {
    writer.reset();
    waitForChild(reader.get(), child, mountpoint);
  }
  ::setsid();
  return Background(std::move(writer));
}

void Background::ready() {
  if (!caller_.valid()) return;
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (null.valid()) {
    for (int fd = 0; fd <= 2; ++fd) ::dup2(null.get(), fd);
  }
  const char byte = 1;
  // If the caller is gone there is nobody to tell.
  if (::write(caller_.get(), &byte, 1) < 0) errno = 0;
  caller_.reset();
}

}  // namespace kilnfs
