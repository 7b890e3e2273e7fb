// kiln-supervise: runs commands for the daemon, and leaves nothing of them behind.
//
//   kiln-supervise LABEL
//
// Forks a supervisor for each request on its standard input, a socket: a message with descriptors,
// which the supervisor has as
//
//   0  from the daemon: a byte says go; its end says that the daemon is gone: kill at once. To the
//      daemon, first of all: the supervisor's process number, with a descriptor of the process
//   1  the log: what the command writes is copied here, so that a full disk is noticed
//   3  to the daemon, at the end, one of: "exit N", "signal N", "error ERRNO TEXT" (the command was
//      not run, or its output was lost)
//   4  what to do: see options.h
//   5  the mount namespace, if there is one for the command
//
// SIGTERM ends the command: SIGTERM to its group, and after the grace SIGKILL. As a child
// subreaper the supervisor inherits every orphan of the command, and kills and reaps them all
// before it ends.
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <optional>

#include "tools/supervise/beneath.h"
#include "tools/supervise/command.h"
#include "tools/supervise/descendants.h"
#include "tools/supervise/guard.h"
#include "tools/supervise/options.h"
#include "tools/supervise/requests.h"
#include "tools/supervise/view.h"

namespace kilnfs::supervise {
namespace {

constexpr int kStatus = 3;
constexpr int kWords = 4;

using Clock = std::chrono::steady_clock;

class Supervisor {
 public:
  explicit Supervisor(Options options) : options_(std::move(options)) {}

  std::string run() {
    if (!setUp())
      return "error " + std::to_string(errno) + " kiln-supervise: " + std::strerror(errno);
    if (!waitForGo()) return "error " + std::to_string(ECANCELED) + " ended before it began";
    std::string error;
    if (!options_.bind.empty() && !view_.enter(options_, error)) return "error " + error;
    command_ = startCommand(options_, view_.fd(), output_[1], error);
    ::close(output_[1]);
    if (command_ < 0) return "error " + error;
    supervise();
    copyOutput();
    removeLinks();
    if (problem_.empty()) view_.close(problem_);
    if (lostOutput_ != 0) {
      return "error " + std::to_string(lostOutput_) +
             " write the log: " + std::strerror(lostOutput_);
    }
    if (!problem_.empty()) return "error " + problem_;
    if (WIFSIGNALED(outcome_)) return "signal " + std::to_string(WTERMSIG(outcome_));
    return "exit " + std::to_string(WEXITSTATUS(outcome_));
  }

 private:
  bool setUp() {
    ::setsid();
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    ::signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    for (const int n : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&set, n);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    signals_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals_ < 0 || ::pipe2(output_, O_CLOEXEC) != 0) return false;
    ::fcntl(output_[0], F_SETFL, O_NONBLOCK);
    // So that the command can open /dev/stdout, as it could if this were a file of its user's.
    if (options_.changeUser && ::geteuid() == 0) {
      return ::fchown(output_[1], options_.uid, options_.gid) == 0;
    }
    return true;
  }

  bool waitForGo() {
    for (;;) {
      struct pollfd fds[2] = {{0, POLLIN, 0}, {signals_, POLLIN, 0}};
      if (::poll(fds, 2, -1) < 0 && errno != EINTR) return false;
      if ((fds[1].revents & POLLIN) != 0 && takeSignals()) return false;
      char go = 0;
      if (fds[0].revents != 0) return ::read(0, &go, 1) == 1;
    }
  }

  /// True if one of them asks to end.
  bool takeSignals() {
    struct signalfd_siginfo info = {};
    bool end = false;
    while (::read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      end = end || info.ssi_signo != SIGCHLD;
    }
    return end;
  }

  void supervise() {
    for (;;) {
      const bool childrenLeft = reap();
      if (!running_ && !childrenLeft) return;
      if (!running_ || killing_) killDescendants();
      struct pollfd fds[3] = {{daemonGone_ ? -1 : 0, POLLIN, 0},
                              {signals_, POLLIN, 0},
                              {outputOpen_ ? output_[0] : -1, POLLIN, 0}};
      ::poll(fds, 3, patience());
      if (fds[2].revents != 0) copyOutput();
      if ((fds[1].revents & POLLIN) != 0 && takeSignals()) terminate();
      char byte = 0;
      if (fds[0].revents != 0 && ::read(0, &byte, 1) <= 0) daemonGone_ = killing_ = true;
      if (killAt_ && Clock::now() >= *killAt_) killing_ = true;
    }
  }

  /// Milliseconds until something has to be looked at even if nothing is heard.
  int patience() const {
    if (killing_ || !running_) return 50;  // orphans arrive as their parents die
    if (!killAt_) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*killAt_ - Clock::now()).count();
    return left > 0 ? static_cast<int>(left) : 0;
  }

  void terminate() {
    if (!running_ || killAt_) return;
    killAt_ = Clock::now() + std::chrono::milliseconds(options_.graceMillis);
    ::kill(-command_, SIGTERM);
    ::kill(-command_, SIGCONT);
  }

  /// Reaps what has ended; false when no child is left.
  bool reap() {
    for (;;) {
      int status = 0;
      const pid_t pid = ::waitpid(-1, &status, WNOHANG);
      if (pid == 0) return true;
      if (pid < 0 && errno != EINTR) return false;
      if (pid == command_) {
        outcome_ = status;
        running_ = false;
      }
    }
  }

  /// Copies into the log what the command wrote: one bufferful while it runs, so that one that
  /// never stops writing does not keep the signals from being seen, and all that is left after its
  /// end.
  void copyOutput() {
    char buffer[65536];
    do {
      const ssize_t n = ::read(output_[0], buffer, sizeof buffer);
      if (n < 0 && errno == EINTR) continue;
      if (n == 0) outputOpen_ = false;
      if (n <= 0) return;
      writeLog(buffer, static_cast<size_t>(n));
    } while (!running_);
  }

  void writeLog(const char* data, size_t size) {
    while (size > 0 && lostOutput_ == 0) {
      const ssize_t n = ::write(1, data, size);
      if (n >= 0) {
        data += n;
        size -= static_cast<size_t>(n);
      } else if (errno != EINTR) {
        lostOutput_ = errno;
        killing_ = true;
      }
    }
  }

  /// With our own rights: the command may have locked its user out.
  void removeLinks() {
    if (options_.links.empty()) return;
    const int root = view_.fd() >= 0
                         ? ::fcntl(view_.fd(), F_DUPFD_CLOEXEC, 0)
                         : ::open(options_.dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (const auto& [path, target] : options_.links) {
      if (root >= 0 && removeLink(root, path, target)) continue;
      problem_ = std::to_string(errno) + " remove the link " + path + ": " + std::strerror(errno);
    }
    if (root >= 0) ::close(root);
  }

  const Options options_;
  View view_;
  int signals_ = -1;
  int output_[2] = {-1, -1};
  pid_t command_ = -1;
  int outcome_ = 0;
  bool running_ = true;
  bool killing_ = false;
  bool daemonGone_ = false;
  bool outputOpen_ = true;
  int lostOutput_ = 0;  // errno of the first write to the log that failed
  std::string problem_;
  std::optional<Clock::time_point> killAt_;
};

int superviseOne() {
  Options options;
  std::string report;
  if (readOptions(kWords, options, report)) {
    report = Supervisor(std::move(options)).run();
  } else {
    report = "error " + std::to_string(EINVAL) + " kiln-supervise: " + report;
  }
  const ssize_t n = ::write(kStatus, report.data(), report.size());
  return n == static_cast<ssize_t>(report.size()) ? 0 : 1;
}

}  // namespace
}  // namespace kilnfs::supervise

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "--guard") == 0) {
    return kilnfs::supervise::guard(argv[2], argv[3]);
  }
  return kilnfs::supervise::serveRequests(kilnfs::supervise::superviseOne);
}
