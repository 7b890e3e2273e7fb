#include "tools/supervise/requests.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

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
  struct iovec data = {&byte, 1};
  alignas(struct cmsghdr) std::array<char, CMSG_SPACE(sizeof request.fds)> control{};
  struct msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t n = 0;
  do {
    n = ::recvmsg(0, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n <= 0) return false;
  request.count = 0;
  const struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return true;
  const size_t size = header->cmsg_len - CMSG_LEN(0);
  std::memcpy(request.fds.data(), CMSG_DATA(header), size);
  request.count = size / sizeof(int);
  return true;
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
  struct iovec data = {const_cast<pid_t*>(&self), sizeof self};
  alignas(struct cmsghdr) std::array<char, CMSG_SPACE(sizeof pidfd)> control{};
  struct msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof pidfd);
  std::memcpy(CMSG_DATA(header), &pidfd, sizeof pidfd);
  const ssize_t n = ::sendmsg(0, &message, MSG_NOSIGNAL);
  ::close(pidfd);
  return n == sizeof self;
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
