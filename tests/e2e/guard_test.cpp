// A daemon that ends by force while it waits for the kernel, which waits for the daemon.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/fd.h"
#include "tests/support/mounted_store.h"
#include "tests/support/sanitized.h"

namespace kilnfs::testing {
namespace {

void pause(int milliseconds) {
  ::poll(nullptr, 0, milliseconds);
}

std::string ofTask(const std::string& task, const char* what) {
  std::string text = readFile("/proc/" + task + "/" + what);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

class Guard : public MountedStore {
 protected:
  std::vector<int> threads() const {
    std::vector<int> out;
    const std::string path = "/proc/" + std::to_string(daemon_->pid()) + "/task";
    DIR* dir = ::opendir(path.c_str());
    while (const dirent* entry = ::readdir(dir)) {
      if (entry->d_name[0] != '.') out.push_back(std::atoi(entry->d_name));
    }
    ::closedir(dir);
    return out;
  }
  std::string taskPath(int thread) const {
    return std::to_string(daemon_->pid()) + "/task/" + std::to_string(thread);
  }

  /// Stops the threads that take requests, and the one that would start others, and no more.
  void stopServing() {
    for (const int thread : threads()) {
      if (thread != daemon_->pid() && ofTask(taskPath(thread), "comm") != "requests") continue;
      ASSERT_EQ(::ptrace(PTRACE_SEIZE, thread, 0, 0), 0);
      ASSERT_EQ(::ptrace(PTRACE_INTERRUPT, thread, 0, 0), 0);
      int status = 0;
      ASSERT_EQ(::waitpid(thread, &status, __WALL), thread);
      stopped_.push_back(thread);
    }
  }
  bool anyWaitsFor(const char* function) const {
    for (const int thread : threads()) {
      if (ofTask(taskPath(thread), "wchan") == function) return true;
    }
    return false;
  }
  /// A thread of the daemon's waits for the lock of results/, which `asker_` has, whose request
  /// nobody takes.
  void deadlock() {
    // The end of a build is an event, after which the kernel is told what is stale in results/.
    ASSERT_EQ(shell("echo \"build slow -c 'touch " + scratch() + "/runs; until test -e " +
                        scratch() + "/go; do sleep 0.02; done'\" > control; ls results",
                    mnt())
                  .status,
              0);
    while (!exists(scratch() + "/runs")) pause(10);
    results_ = UniqueFd(::open(mnt("results").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(results_.valid());
    stopServing();
    asker_ = ::fork();
    if (asker_ == 0) {
      struct stat st;
      ::_exit(::fstatat(results_.get(), "nothing", &st, 0) == 0 ? 1 : 0);
    }
    while (ofTask(std::to_string(asker_), "wchan") != "request_wait_answer") pause(10);
    writeFile(scratch() + "/go", "");
    while (!anyWaitsFor("fuse_reverse_inval_entry")) pause(10);
  }
  void kill() const {
    ::kill(daemon_->pid(), SIGKILL);
    int status = 0;
    for (const int thread : stopped_) {
      if (thread != daemon_->pid()) ::waitpid(thread, &status, __WALL);
    }
  }
  /// Whether a child of ours has ended, within half a minute.
  static bool hasEnded(pid_t child) {
    for (int i = 0; i < 300; ++i) {
      siginfo_t ended = {};
      ::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOHANG | WNOWAIT);
      if (ended.si_pid != 0) return true;
      pause(100);
    }
    return false;
  }
  void expectEnd() {
    const bool done = hasEnded(daemon_->pid());
    EXPECT_TRUE(done);
    if (!done) cutByForce();
    int status = 0;
    ::waitpid(asker_, &status, 0);
    results_.reset();
  }
  /// Else nothing of this would ever end.
  void cutByForce() const { ::umount2(mnt().c_str(), MNT_FORCE); }
  void clear() {
    daemon_.reset();
    int status = 0;
    while (::waitpid(-1, &status, 0) > 0) {
    }
  }

  pid_t asker_ = -1;
  UniqueFd results_;
  std::vector<int> stopped_;
};

TEST_F(Guard, AKilledDaemonEndsThoughItWaitsForSomebodyWhoWaitsForIt) {
  if (::geteuid() != 0) GTEST_SKIP() << "declared: needs to trace the daemon";
  start();
  deadlock();
  kill();
  expectEnd();
  clear();
}

TEST_F(Guard, SoItDoesWhenTheMountWasTakenAwayBefore) {
  if (::geteuid() != 0) GTEST_SKIP() << "declared: needs to trace the daemon";
  start();
  deadlock();
  const UniqueFd again(::open(mnt().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(::umount2(mnt().c_str(), MNT_DETACH), 0);
  kill();
  expectEnd();
  clear();
}

// poll refuses more descriptors than a process may have.
TEST_F(Guard, ADaemonThatCantServeAnyMoreEndsThoughItWaitsForSomebodyWhoWaitsForIt) {
  if (kSanitizerNeedsDescriptors) GTEST_SKIP() << "declared: leaves no descriptor free";
  if (::geteuid() != 0) GTEST_SKIP() << "declared: needs to trace the daemon";
  start();
  deadlock();
  struct rlimit limit;
  ASSERT_EQ(::prlimit(daemon_->pid(), RLIMIT_NOFILE, nullptr, &limit), 0);
  const struct rlimit one = {1, limit.rlim_max};
  ASSERT_EQ(::prlimit(daemon_->pid(), RLIMIT_NOFILE, &one, nullptr), 0);
  for (const int thread : stopped_) ASSERT_EQ(::ptrace(PTRACE_DETACH, thread, 0, 0), 0);
  EXPECT_TRUE(hasEnded(asker_));
  ASSERT_EQ(::prlimit(daemon_->pid(), RLIMIT_NOFILE, &limit, nullptr), 0);
  expectEnd();
  EXPECT_EQ(daemon_->end(0), 1);
  EXPECT_NE(daemon_->log().find("wait for requests"), std::string::npos) << daemon_->log();
  clear();
}

TEST_F(Guard, HeedsNobodyElsesSignals) {
  start();
  const pid_t guard = daemon_->guard();
  ASSERT_GT(guard, 0);
  while (::getsid(guard) != guard) pause(10);  // it has begun
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGRTMIN}) ASSERT_EQ(::kill(guard, signal), 0);
  pause(200);
  EXPECT_EQ(daemon_->guard(), guard);
  EXPECT_EQ(shell("cat metrics", mnt()).status, 0);
}

}  // namespace
}  // namespace kilnfs::testing
