#include "store/build/supervisors.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

namespace kilnfs {
namespace {

constexpr size_t kMostFds = 8;

/// A message of one byte with descriptors. False with errno.
bool sendFds(int socket, const std::vector<int>& fds) {
  char byte = 'f';
  struct iovec data = {&byte, 1};
  alignas(struct cmsghdr) std::array<char, CMSG_SPACE(kMostFds * sizeof(int))> control{};
  struct msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  ssize_t n = 0;
  do {
    n = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  return n == 1;
}

/// What a supervisor says first: its number, with a descriptor of itself. False: it is not there.
bool greeted(Supervisors::Forked& forked) {
  struct iovec data = {&forked.pid, sizeof forked.pid};
  alignas(struct cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  struct msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t n = 0;
  do {
    n = ::recvmsg(forked.go.get(), &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  const struct cmsghdr* header = n > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    forked.pidfd.reset(fd);
  }
  return n == sizeof forked.pid && forked.pidfd.valid();
}

}  // namespace

Expected<Supervisors::Forked> Supervisors::fork(const std::vector<int>& fds) {
  // Who forks them may have been killed, which is seen at the next try.
  constexpr int kTries = 3;
  for (int i = 0; i < kTries; ++i) {
    // A socket, since writing to a pipe that nobody reads any more raises SIGPIPE.
    int go[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, go) != 0) {
      return failErrno("socketpair");
    }
    Forked out;
    out.go.reset(go[0]);
    UniqueFd theirs(go[1]);
    std::vector<int> all = {theirs.get()};
    all.insert(all.end(), fds.begin(), fds.end());
    if (auto ok = ask(all); !ok) return Failure(ok.error());
    theirs.reset();  // so that the end of the other one is seen
    if (greeted(out)) return out;
  }
  return fail(EAGAIN, "the command's supervisor could not be forked");
}

Status Supervisors::ask(const std::vector<int>& fds) {
  const std::lock_guard lock(mutex_);
  if (server_ && sendFds(server_->requests.get(), fds)) return {};
  server_.reset();
  if (auto ok = startServer(); !ok) return ok;
  if (!sendFds(server_->requests.get(), fds)) return failErrno("ask for a supervisor");
  return {};
}

Status Supervisors::startServer() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return failErrno("socketpair");
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  Process::Options options;
  options.env = std::vector<std::string>{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"};
  options.stdinFd = theirs.get();
  auto process = Process::start({program_, label_}, options);
  if (!process) return Failure(process.error());
  server_.emplace(Server{std::move(ours), std::move(*process)});
  return {};
}

}  // namespace kilnfs
