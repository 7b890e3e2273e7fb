#include "tests/support/mounted_store.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <sstream>

#include "store/base/mountinfo.h"

namespace kilnfs::testing {
namespace {

int outcome(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void becomeUser(unsigned uid) {
  if (uid == 0 || ::geteuid() != 0) return;
  if (::setgroups(0, nullptr) != 0 || ::setgid(uid) != 0 || ::setuid(uid) != 0) ::_exit(126);
}

// A mount whose daemon is dead is one too, but does not answer.
bool isDaemonsMount(const std::string& mnt) {
  // Not stat: the kernel may know the root's attributes from a daemon that was just killed.
  struct statfs space;
  return ::statfs(mnt.c_str(), &space) == 0 && space.f_type == FUSE_SUPER_MAGIC;
}

}  // namespace

std::vector<std::string> mountsBelow(const std::string& path) {
  std::vector<std::string> found;
  std::ifstream in("/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    std::string point = mountLine(line).point;
    if (point.starts_with(path)) found.push_back(std::move(point));
  }
  return found;
}

int asUser(unsigned uid, const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    becomeUser(uid);
    ::_exit(body());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return outcome(status);
}

Ran shell(const std::string& line, const std::string& cwd, unsigned uid) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return {127, "pipe"};
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], 1);
    ::dup2(ends[1], 2);
    if (::chdir(cwd.c_str()) != 0) ::_exit(125);
    becomeUser(uid);
    ::execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  Ran ran;
  std::array<char, 4096> buffer{};
  for (ssize_t n; (n = ::read(ends[0], buffer.data(), buffer.size())) > 0;) {
    ran.output.append(buffer.data(), static_cast<size_t>(n));
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  ran.status = outcome(status);
  return ran;
}

Daemon::Daemon(std::string store, std::string mnt, const std::vector<std::string>& options,
               unsigned uid)
    : mnt_(std::move(mnt)), log_(mnt_ + ".log") {
  std::vector<std::string> words = {KILNFS_BIN "/kilnfs", "-f", std::move(store), mnt_};
  for (const std::string& option : options) words.insert(words.end(), {"-o", option});
  pid_ = ::fork();
  if (pid_ == 0) {
    const int log = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(log, 1);
    ::dup2(log, 2);
    becomeUser(uid);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  while (!isDaemonsMount(mnt_)) {
    siginfo_t ended = {};
    if (::waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        ended.si_pid == pid_) {
      return;
    }
    ::poll(nullptr, 0, 5);
  }
}

Daemon::~Daemon() {
  if (pid_ < 0) return;
  end(SIGKILL);
  ::umount2(mnt_.c_str(), MNT_DETACH);
}

bool Daemon::mounted() const {
  return isDaemonsMount(mnt_);
}

int Daemon::guard() const {
  const std::string self = std::to_string(pid_);
  std::istringstream children(readFile("/proc/" + self + "/task/" + self + "/children"));
  for (pid_t child = 0; children >> child;) {
    const std::string words = readFile("/proc/" + std::to_string(child) + "/cmdline");
    if (words.find("--guard") != std::string::npos) return child;
  }
  return -1;
}

int Daemon::end(int signal) {
  if (pid_ < 0) return -1;
  const pid_t guard = signal == SIGKILL ? this->guard() : -1;
  if (signal != 0) ::kill(pid_, signal);
  int status = 0;
  ::waitpid(pid_, &status, 0);
  if (guard > 0) ::waitpid(guard, nullptr, 0);  // ours now: it outlives it
  pid_ = -1;
  return outcome(status);
}

void MountedStore::SetUp() {
  ASSERT_EQ(::access("/dev/fuse", F_OK), 0) << "these tests mount: they need /dev/fuse";
  // Whatever the daemon would leave behind becomes our child, and is found.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  ASSERT_EQ(::chmod(dir_.path().c_str(), 0755), 0);
  for (const std::string& path : {mnt(), scratch()}) ASSERT_EQ(::mkdir(path.c_str(), 0755), 0);
}

void MountedStore::start(const std::vector<std::string>& options, unsigned uid) {
  daemon_ = std::make_unique<Daemon>(store(), mnt(), options, uid);
  ASSERT_TRUE(daemon_->mounted()) << daemon_->log();
}

void MountedStore::finish() {
  if (!daemon_) return;
  EXPECT_EQ(daemon_->end(SIGTERM), 0) << daemon_->log();
  EXPECT_TRUE(mountsBelow(dir_.path()).empty());
  for (const char* area : {"/result-tmp", "/cache-tmp"}) {
    EXPECT_EQ(entries(store() + area), 0u) << shell("ls -lAR " + store() + area).output;
  }
  siginfo_t left = {};
  const int waited = ::waitid(P_ALL, 0, &left, WEXITED | WNOHANG | WNOWAIT);
  EXPECT_TRUE(waited != 0 && errno == ECHILD)
      << "a process is left: " << left.si_pid << " "
      << readFile("/proc/" + std::to_string(left.si_pid) + "/stat");
  daemon_.reset();
}

void MountedStore::TearDown() {
  finish();
}

}  // namespace kilnfs::testing
