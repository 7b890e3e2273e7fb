// A daemon that is killed while it waits for the kernel, which waits for the daemon.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/mounted_store.h"

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
  /// Kills the daemon; whether it has ended within half a minute.
  bool killed() {
    ::kill(daemon_->pid(), SIGKILL);
    int status = 0;
    for (const int thread : stopped_) {
      if (thread != daemon_->pid()) ::waitpid(thread, &status, __WALL);
    }
    for (int i = 0; i < 300; ++i) {
      siginfo_t ended = {};
      ::waitid(P_PID, static_cast<id_t>(daemon_->pid()), &ended, WEXITED | WNOHANG | WNOWAIT);
      if (ended.si_pid != 0) return true;
      pause(100);
    }
    return false;
  }

  std::vector<int> stopped_;
};

TEST_F(Guard, AKilledDaemonEndsThoughItWaitsForSomebodyWhoWaitsForIt) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs to trace the daemon";
  start();
  // Its end is an event, after which the kernel is told what is stale in results/.
  ASSERT_EQ(shell("echo \"build slow -c 'touch " + scratch() + "/runs; until test -e " + scratch() +
                      "/go; do sleep 0.02; done'\" > control; ls results",
                  mnt())
                .status,
            0);
  while (!exists(scratch() + "/runs")) pause(10);
  const int results = ::open(mnt("results").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  ASSERT_GE(results, 0);
  stopServing();
  const pid_t asker = ::fork();
  if (asker == 0) {
    struct stat st;
    ::_exit(::fstatat(results, "nothing", &st, 0) == 0 ? 1 : 0);
  }
  while (ofTask(std::to_string(asker), "wchan") != "request_wait_answer") pause(10);
  writeFile(scratch() + "/go", "");
  while (!anyWaitsFor("fuse_reverse_inval_entry")) pause(10);

  const bool ended = killed();
  EXPECT_TRUE(ended);
  if (!ended) ::umount2(mnt().c_str(), MNT_FORCE);  // else nothing of this would ever end
  int status = 0;
  ::waitpid(asker, &status, 0);
  ::close(results);
  daemon_.reset();
  while (::waitpid(-1, &status, 0) > 0) {
  }
}

}  // namespace
}  // namespace kilnfs::testing
