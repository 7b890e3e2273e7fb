// Ending a daemon whose mount is in use.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/fd.h"
#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

using Ending = MountedStore;

// The mount point is a mount itself, which must not be taken away with ours.
class EndingAboveAMount : public MountedStore {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "declared: needs to mount a tmpfs";
    MountedStore::SetUp();
    ASSERT_EQ(::mount("below", mnt().c_str(), "tmpfs", 0, "size=1m"), 0);
    start();
    inUse_ = UniqueFd(::open(mnt("metrics").c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(inUse_.valid());
  }
  void TearDown() override {
    if (!daemon_) return;
    ASSERT_EQ(daemon_->end(SIGTERM), 0) << daemon_->log();
    inUse_.reset();
    EXPECT_EQ(mountsBelow(dir_.path()), std::vector<std::string>{mnt()});
    EXPECT_EQ(::umount(mnt().c_str()), 0);
    daemon_.reset();
  }

  UniqueFd inUse_;
};

TEST_F(EndingAboveAMount, LeavesThatWhereItIs) {}

TEST_F(EndingAboveAMount, LeavesThatWhereItIsIfOursWasTakenAwayBefore) {
  ASSERT_EQ(::umount2(mnt().c_str(), MNT_DETACH), 0);
}

TEST_F(Ending, IsNotHeldUpByThoseWhoGoOnAsking) {
  start();
  const UniqueFd results(::open(mnt("results").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  ASSERT_TRUE(results.valid());
  constexpr int kAskers = 8;
  std::vector<pid_t> askers;
  for (int i = 0; i < kAskers; ++i) {
    askers.push_back(::fork());
    if (askers.back() != 0) continue;
    // Each listing is handed to a worker.
    for (;;) {
      const UniqueFd here(::openat(results.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      char room[4096];
      if (!here.valid() || ::getdents64(here.get(), room, sizeof room) < 0) ::_exit(0);
    }
  }
  ::poll(nullptr, 0, 200);  // until they do
  EXPECT_EQ(daemon_->end(SIGTERM), 0) << daemon_->log();
  for (const pid_t asker : askers) {
    int status = 0;
    ::waitpid(asker, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  daemon_.reset();
  EXPECT_TRUE(mountsBelow(dir_.path()).empty());
}

}  // namespace
}  // namespace kilnfs::testing
