#include "tools/supervise/requests.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "store/base/fd_message.h"

namespace kilnfs::supervise {
namespace {

constexpr std::array<int, 5> kNumbers = {0, 1, 3, 4, 5};  // of what comes with a request, in order
constexpr int kAbove = 10;                                // none of those

struct Request {
  std::array<int, kNumbers.size()> fds{};
  size_t count = 0;

  void close() const {
    for (size_t i = 0; i < count; ++i) ::close(fds[i]);
  }
};

/// False: the daemon is gone.
bool receive(Request& request) {
  char byte = 0;
  request.count = request.fds.size();
  return receiveWithFds(0, &byte, 1, request.fds.data(), request.count) > 0;
}

/// Gives what came with the request its numbers, in the process that was forked for it.
bool place(const Request& request) {
  std::array<int, kNumbers.size()> high{};
  for (size_t i = 0; i < request.count; ++i) {
    high[i] = ::fcntl(request.fds[i], F_DUPFD_CLOEXEC, kAbove);
    if (high[i] < 0) return false;
  }
  request.close();
  for (size_t i = 0; i < request.count; ++i) {
    if (::dup3(high[i], kNumbers[i], O_CLOEXEC) < 0) return false;
    ::close(high[i]);
  }
  return true;
}

bool greet() {
  const pid_t self = ::getpid();
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, self, 0));
  if (pidfd < 0) return false;
  const bool sent = sendWithFds(0, &self, sizeof self, &pidfd, 1);
  ::close(pidfd);
  return sent;
}

}  // namespace

int serveRequests(int (*supervise)()) {
  ::setsid();
  if (::chdir("/") != 0) return 1;
  ::signal(SIGCHLD, SIG_IGN);  // supervisors say themselves how it went: nobody reaps them
  Request request;
  while (receive(request)) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::signal(SIGCHLD, SIG_DFL);
      return place(request) && greet() ? supervise() : 1;
    }
    request.close();  // who asked sees that, if it could not be forked
  }
  return 0;
}

}  // namespace kilnfs::supervise
