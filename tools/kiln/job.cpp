#include "tools/kiln/job.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "store/base/fd.h"

namespace kilnfs {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
constexpr milliseconds kGrace{5000};
constexpr milliseconds kForever{3600 * 1000};
constexpr std::array kEnding = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

sigset_t heldSet() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : kEnding) sigaddset(&set, signal);
  sigaddset(&set, SIGCHLD);
  // Giving the terminal away and back from the background would stop kiln itself.
  sigaddset(&set, SIGTTOU);
  return set;
}

// The terminal that kiln and the job take turns on; inert where there is none.
class Terminal {
 public:
  Terminal() : fd_(open("/dev/tty", O_RDWR | O_CLOEXEC)) {}
  bool mine() const { return fd_.valid() && tcgetpgrp(fd_.get()) == getpgrp(); }
  void give(pid_t group) const {
    if (fd_.valid()) tcsetpgrp(fd_.get(), group);
  }
  /// Takes it back from `group`, and from nobody else.
  void takeBack(pid_t group) const {
    if (fd_.valid() && tcgetpgrp(fd_.get()) == group) tcsetpgrp(fd_.get(), getpgrp());
  }

 private:
  UniqueFd fd_;
};

[[noreturn]] void runChild(std::vector<char*>& argv, const Terminal& terminal, bool foreground,
                           const HeldSignals& held, pid_t kiln, int errorFd) {
  constexpr int kCannotRun = 127;
  setpgid(0, 0);
  // With kiln go its leases: what the command did then would be for nobody.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != kiln) _exit(kCannotRun);  // it went before it was asked for
  if (foreground) terminal.give(getpid());
  held.letGo();
  execvp(argv[0], argv.data());
  const int code = errno;
  (void)!write(errorFd, &code, sizeof code);
  _exit(kCannotRun);
}

// Starts the command in a group of its own; the group's number is its pid.
Expected<pid_t> start(const std::vector<std::string>& words, const Terminal& terminal,
                      bool foreground, const HeldSignals& held) {
  std::vector<std::string> copies = words;
  std::vector<char*> argv;
  argv.reserve(copies.size() + 1);
  for (auto& word : copies) argv.push_back(word.data());
  argv.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return failErrno("pipe");
  const UniqueFd readEnd(ends[0]);
  UniqueFd writeEnd(ends[1]);
  const pid_t kiln = getpid();
  const pid_t pid = fork();
  if (pid < 0) return failErrno("fork");
  if (pid == 0) runChild(argv, terminal, foreground, held, kiln, writeEnd.get());
  writeEnd.reset();
  // Also here, so that neither of the two can run ahead of it.
  setpgid(pid, pid);
  if (foreground) terminal.give(pid);
  int code = 0;
  ssize_t n = 0;
  do {
    n = read(readEnd.get(), &code, sizeof code);
  } while (n < 0 && errno == EINTR);
  if (n != sizeof code) return pid;
  waitpid(pid, nullptr, 0);
  terminal.takeBack(pid);
  return fail(code, words[0] + ": " + std::strerror(code));
}

// The job was stopped: kiln stops with it, as one job of the shell, and both go on together.
void stopTogether(pid_t pid, int signal, const Terminal& terminal) {
  const bool wantsTerminal = signal == SIGTTIN || signal == SIGTTOU;
  if (!(wantsTerminal && terminal.mine())) {
    terminal.takeBack(pid);
    kill(0, SIGTSTP);
  }
  if (terminal.mine()) terminal.give(pid);
  kill(-pid, SIGCONT);
}

// Sends SIGTERM at the deadline and SIGKILL after the grace.
class Deadline {
 public:
  explicit Deadline(std::optional<milliseconds> timeout) {
    if (timeout) next_ = Clock::now() + *timeout;
  }
  bool passed() const { return signal_ != SIGTERM; }
  milliseconds left() const {
    if (next_ == kNever) return kForever;
    const auto left = std::chrono::ceil<milliseconds>(next_ - Clock::now());
    return std::clamp(left, milliseconds(0), kForever);
  }
  void act(pid_t group) {
    if (next_ == kNever || Clock::now() < next_) return;
    kill(-group, signal_);
    if (signal_ == SIGTERM) kill(-group, SIGCONT);
    next_ = signal_ == SIGTERM ? Clock::now() + kGrace : kNever;
    signal_ = SIGKILL;
  }

 private:
  static constexpr Clock::time_point kNever = Clock::time_point::max();
  Clock::time_point next_ = kNever;
  int signal_ = SIGTERM;
};

}  // namespace

HeldSignals::HeldSignals() {
  const sigset_t set = heldSet();
  pthread_sigmask(SIG_BLOCK, &set, &before_);
  // Nobody can wait for a child if the signal is ignored, as it is if kiln's parent did so.
  struct sigaction children = {};
  children.sa_handler = SIG_DFL;
  sigaction(SIGCHLD, &children, &childrenBefore_);
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &pipeBefore_);
}

HeldSignals::~HeldSignals() {
  letGo();
}

void HeldSignals::letGo() const {
  sigaction(SIGCHLD, &childrenBefore_, nullptr);
  sigaction(SIGPIPE, &pipeBefore_, nullptr);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

int HeldSignals::wait(milliseconds timeout) {
  sigset_t set = heldSet();
  sigdelset(&set, SIGTTOU);
  constexpr int64_t kSecond = 1000;
  const struct timespec limit = {timeout.count() / kSecond,
                                 timeout.count() % kSecond * kSecond * kSecond};
  const int signal = sigtimedwait(&set, nullptr, &limit);
  return signal > 0 ? signal : 0;
}

Expected<JobEnd> runJob(const std::vector<std::string>& argv, std::optional<milliseconds> timeout,
                        const HeldSignals& held) {
  const Terminal terminal;
  const auto pid = start(argv, terminal, terminal.mine(), held);
  if (!pid) return Failure(pid.error());
  Deadline deadline(timeout);
  while (true) {
    int status = 0;
    const pid_t changed = waitpid(*pid, &status, WNOHANG | WUNTRACED);
    if (changed < 0 && errno != EINTR) {
      const int code = errno;
      terminal.takeBack(*pid);
      return fail(code, "wait for " + argv[0] + ": " + std::strerror(code));
    }
    if (changed == *pid && WIFSTOPPED(status)) {
      stopTogether(*pid, WSTOPSIG(status), terminal);
    } else if (changed == *pid) {
      terminal.takeBack(*pid);
      JobEnd end;
      end.timedOut = deadline.passed();
      end.exit = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
      end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
      return end;
    }
    const int signal = HeldSignals::wait(deadline.left());
    if (signal != 0 && signal != SIGCHLD) {
      kill(-*pid, signal);
      kill(-*pid, SIGCONT);
    }
    deadline.act(*pid);
  }
}

}  // namespace kilnfs
