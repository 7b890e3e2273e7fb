#include "tools/supervise/command.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "tools/supervise/beneath.h"

namespace kilnfs::supervise {
namespace {

constexpr int kReport = 3;  // in the child: closed by a successful exec

[[noreturn]] void giveUp(const std::string& what) {
  const int code = errno;
  const std::string text = std::to_string(code) + " " + what + ": " + std::strerror(code);
  [[maybe_unused]] const ssize_t n = ::write(kReport, text.data(), text.size());
  ::_exit(127);
}

/// What root could hand down to a command in spite of its user id.
void clearCapabilities() {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) == 0) {
    data[0].inheritable = data[1].inheritable = 0;
    ::syscall(SYS_capset, &header, data);
  }
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

/// Exactly these ids and groups, with no way back.
void becomeUser(const Options& options) {
  if (::geteuid() != 0) {
    if (options.uid == ::geteuid()) return;
    errno = EPERM;
    giveUp("run as user " + std::to_string(options.uid));
  }
  ::prctl(PR_SET_SECUREBITS, 0, 0, 0, 0);
  clearCapabilities();
  if (::setgroups(options.groups.size(), options.groups.data()) != 0) giveUp("setgroups");
  if (::setresgid(options.gid, options.gid, options.gid) != 0) giveUp("setgid");
  if (::setresuid(options.uid, options.uid, options.uid) != 0) giveUp("setuid");
  if (options.uid != 0 && ::setuid(0) == 0) {
    errno = EPERM;
    giveUp("give up root");
  }
}

void resetSignals() {
  for (int n = 1; n < NSIG; ++n) ::signal(n, SIG_DFL);  // fails for KILL, STOP: no matter
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

/// The working directory, the links, and where the command starts, with its user's rights.
void prepareDirectory(const Options& options, int view) {
  const int entered = view >= 0 ? ::fchdir(view) : ::chdir(options.dir.c_str());
  if (entered != 0) giveUp("chdir " + options.dir);
  const int root = ::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) giveUp("open " + options.dir);
  for (const auto& [path, target] : options.links) {
    if (!makeLink(root, path, target)) giveUp("link " + path);
  }
  if (!options.below.empty()) {
    const int below = openBeneath(root, options.below, true);
    if (below < 0 || ::fchdir(below) != 0) giveUp("enter " + options.below);
  }
  struct stat st = {};
  if (!options.plain.empty() &&
      ::fstatat(AT_FDCWD, options.plain.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
      S_ISLNK(st.st_mode)) {
    errno = ELOOP;
    giveUp("write to " + options.plain);
  }
}

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> out;
  out.reserve(words.size() + 1);
  for (const std::string& word : words) out.push_back(const_cast<char*>(word.c_str()));
  out.push_back(nullptr);
  return out;
}

[[noreturn]] void runChild(const Options& options, int view, int output, int report) {
  ::setpgid(0, 0);
  if (report != kReport) ::dup2(report, kReport);
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null < 0) giveUp("open /dev/null");
  ::dup2(null, 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
  ::fcntl(kReport, F_SETFD, FD_CLOEXEC);
  if (view > kReport) view = ::dup2(view, kReport + 1);
  ::syscall(SYS_close_range, kReport + (view >= 0 ? 2 : 1), ~0U, 0);
  if (options.changeUser) becomeUser(options);
  ::umask(022);
  prepareDirectory(options, view);
  if (view >= 0) ::close(view);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // after the ids, whose change clears it
  resetSignals();
  std::vector<char*> argv = pointers(options.argv);
  std::vector<char*> env = pointers(options.env);
  ::environ = env.data();  // execvp looks for PATH there
  ::execvp(argv[0], argv.data());
  giveUp("run " + options.argv[0]);
}

}  // namespace

pid_t startCommand(const Options& options, int view, int output, std::string& error) {
  // Not 0 to 3: those are the child's.
  int raw[2];
  if (::pipe2(raw, O_CLOEXEC) != 0) {
    error = std::to_string(errno) + " pipe";
    return -1;
  }
  const int readEnd = ::fcntl(raw[0], F_DUPFD_CLOEXEC, 10);
  const int writeEnd = ::fcntl(raw[1], F_DUPFD_CLOEXEC, 10);
  ::close(raw[0]);
  ::close(raw[1]);
  const pid_t pid = ::fork();
  if (pid == 0) runChild(options, view, output, writeEnd);
  if (pid < 0) error = std::to_string(errno) + " fork: " + std::strerror(errno);
  ::close(writeEnd);
  if (pid > 0) {
    ::setpgid(pid, pid);  // whoever of the two is first
    char buffer[512];
    ssize_t n = 0;
    while ((n = ::read(readEnd, buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR)) {
      if (n > 0) error.append(buffer, static_cast<size_t>(n));
    }
  }
  ::close(readEnd);
  if (error.empty()) return pid;
  if (pid > 0) ::waitpid(pid, nullptr, 0);
  return -1;
}

}  // namespace kilnfs::supervise
