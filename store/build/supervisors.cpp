#include "store/build/supervisors.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include "store/base/fd_message.h"

namespace kilnfs {
namespace {

bool sendFds(int socket, const std::vector<int>& fds) {
  const char byte = 'f';
  return sendWithFds(socket, &byte, 1, fds.data(), fds.size());
}

/// What a supervisor says first: its number, with a descriptor of itself. False: it is not there.
bool greeted(Supervisors::Forked& forked) {
  int fd = -1;
  size_t count = 1;
  const ssize_t n = receiveWithFds(forked.go.get(), &forked.pid, sizeof forked.pid, &fd, count);
  forked.pidfd.reset(fd);
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
  options.env = Process::helperEnvironment();
  options.stdinFd = theirs.get();
  auto process = Process::start({program_, label_}, options);
  if (!process) return Failure(process.error());
  server_.emplace(Server{std::move(ours), std::move(*process)});
  return {};
}

}  // namespace kilnfs
