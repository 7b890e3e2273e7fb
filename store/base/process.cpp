#include "store/base/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdio>
#include <memory>
#include <mutex>

#if __has_include(<boost/process/v1.hpp>)
#define BOOST_PROCESS_VERSION 1
#include <boost/process/v1.hpp>
namespace bp = boost::process::v1;
#else
#include <boost/process.hpp>
#include <boost/process/extend.hpp>
namespace bp = boost::process;
#endif

namespace kilnfs {
namespace {

// Between making Boost's error pipe and marking it close-on-exec another fork would inherit it and
// keep the starter waiting: one start at a time.
std::mutex& startMutex() {
  static std::mutex mutex;
  return mutex;
}

// What the child does between fork and exec: async-signal-safe calls only.
struct SetUpChild : bp::extend::handler {
  const Process::Options* options = nullptr;

  template <class Sequence>
  void on_exec_setup(Sequence& /*executor*/) const {
    if (options->ownGroup) ::setpgid(0, 0);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::signal(SIGPIPE, SIG_DFL);
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    const int wanted[3] = {options->stdinFd, options->stdoutFd, options->stderrFd};
    for (int n = 0; n < 3; ++n) ::dup2(wanted[n] >= 0 ? wanted[n] : null, n);
  }
};

Process::Outcome outcomeOf(int status) {
  Process::Outcome out;
  if (WIFEXITED(status)) out.exit = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) out.signal = WTERMSIG(status);
  return out;
}

}  // namespace

Expected<Process> Process::start(const std::vector<std::string>& argv, const Options& options) {
  if (argv.empty()) return fail(EINVAL, "no command");
  std::string program = argv[0];
  if (program.find('/') == std::string::npos) program = bp::search_path(program).string();
  if (program.empty()) return fail(ENOENT, fmt::format("{} is not installed", argv[0]));

  SetUpChild setUp;
  setUp.options = &options;
  std::error_code error;
  const std::vector<std::string> args(argv.begin() + 1, argv.end());
  bp::environment env = boost::this_process::environment();
  if (options.env) {
    env.clear();
    for (const std::string& pair : *options.env) {
      const size_t equals = pair.find('=');
      if (equals != std::string::npos) env[pair.substr(0, equals)] = pair.substr(equals + 1);
    }
  }
  Process process;
  process.ownGroup_ = options.ownGroup;
  try {
    const std::lock_guard lock(startMutex());
    bp::child child(bp::exe = program, bp::args = args, env, setUp, error);
    if (!error) {
      process.pid_ = child.id();
      child.detach();  // reaped by Process::wait
    }
  } catch (const std::exception& e) {
    return fail(EIO, fmt::format("start {}: {}", argv[0], e.what()));
  }
  if (error) return fail(error.value(), fmt::format("start {}: {}", argv[0], error.message()));
  process.pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, process.pid_, 0)));
  if (!process.pidfd_.valid()) return failErrno("pidfd_open");
  return process;
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      ownGroup_(other.ownGroup_),
      pidfd_(std::move(other.pidfd_)) {}

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    kill();
    pid_ = std::exchange(other.pid_, -1);
    ownGroup_ = other.ownGroup_;
    pidfd_ = std::move(other.pidfd_);
  }
  return *this;
}

Process::~Process() {
  kill();
}

void Process::kill() {
  if (pid_ <= 0) return;
  signal(SIGKILL);
  wait();
}

Process::Outcome Process::wait() {
  int status = 0;
  pid_t ended = 0;
  do {
    ended = ::waitpid(pid_, &status, 0);
  } while (ended < 0 && errno == EINTR);
  pid_ = -1;
  if (ended < 0) return {};  // how it ended can't be known, so it is no success
  return outcomeOf(status);
}

void Process::signal(int number) const {
  if (pid_ > 0) ::kill(ownGroup_ ? -pid_ : pid_, number);
}

namespace {

/// Keeps the last bytes of a command's standard error.
void appendTail(std::string& tail, const char* data, size_t size) {
  constexpr size_t kTail = 2000;
  tail.append(data, size);
  if (tail.size() > kTail) tail.erase(0, tail.size() - kTail);
}

Failure commandFailed(const std::string& program, const Process::Outcome& outcome,
                      std::string tail) {
  while (!tail.empty() && tail.back() == '\n') tail.pop_back();
  const std::string how = outcome.signal ? fmt::format("was killed by signal {}", *outcome.signal)
                                         : fmt::format("exited with {}", outcome.exit.value_or(-1));
  return fail(EIO, fmt::format("{} {}{}{}", program, how, tail.empty() ? "" : ": ", tail));
}

}  // namespace

Status runCommand(const std::vector<std::string>& argv, Interrupt& interrupt) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return failErrno("pipe");
  UniqueFd readEnd(ends[0]);
  UniqueFd writeEnd(ends[1]);
  // Shared with the interrupt, which may fire after this function has returned.
  auto wake = std::make_shared<UniqueFd>(::eventfd(0, EFD_CLOEXEC));
  if (!wake->valid()) return failErrno("eventfd");
  Process::Options options;
  options.stderrFd = writeEnd.get();
  auto process = Process::start(argv, options);
  if (!process) return Failure(process.error());
  writeEnd.reset();
  interrupt.onRaise([wake] { ::eventfd_write(wake->get(), 1); });

  std::string tail;
  bool killed = false;
  bool open = true;
  for (;;) {
    struct pollfd fds[3] = {{process->pidfd(), POLLIN, 0},
                            {open ? readEnd.get() : -1, POLLIN, 0},
                            {killed ? -1 : wake->get(), POLLIN, 0}};
    if (::poll(fds, 3, -1) < 0 && errno != EINTR) return failErrno("poll");
    if ((fds[2].revents & POLLIN) != 0) {
      killed = true;
      process->signal(SIGKILL);
    }
    if (fds[1].revents != 0) {
      char buffer[4096];
      const ssize_t n = ::read(readEnd.get(), buffer, sizeof buffer);
      if (n > 0) appendTail(tail, buffer, static_cast<size_t>(n));
      open = n > 0;
      continue;  // drain what it wrote before looking at its end
    }
    if ((fds[0].revents & POLLIN) != 0) break;
  }
  const Process::Outcome outcome = process->wait();
  if (killed) return fail(EINTR, argv[0] + " was interrupted");
  if (!outcome.ok()) return commandFailed(argv[0], outcome, std::move(tail));
  return {};
}

}  // namespace kilnfs
