// Leases by job, handle and tag, with real processes as holders.
#include "store/leases.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "store/base/fd.h"
#include "store/jobs.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using testing::entries;
using testing::exists;
using testing::readFile;
using testing::TempDir;
using testing::writeFile;

/// A process that sleeps until it is killed, in a group of its own or in `group`.
class Sleeper {
 public:
  explicit Sleeper(pid_t group = 0) {
    pid_ = ::fork();
    if (pid_ == 0) {
      ::setpgid(0, group);
      for (;;) ::pause();
    }
    ::setpgid(pid_, group);
  }
  ~Sleeper() { end(); }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;

  void kill() const { ::kill(pid_, SIGKILL); }
  void end() {
    if (pid_ <= 0) return;
    kill();
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  pid_t pid() const { return pid_; }
  Requester requester(uid_t uid = 0) const {
    Requester r;
    r.uid = uid;
    r.gid = uid;
    r.pid = pid_;
    return r;
  }

 private:
  pid_t pid_ = -1;
};

class LeasesTest : public ::testing::Test {
 protected:
  LeasesTest() {
    store_ = std::move(*Store::create(dir_ / "store", {{}, "", true}));
    leases_ =
        Leases::create(*store_, {std::chrono::milliseconds(50), std::chrono::milliseconds(5)});
  }

  void change(const std::string& lease, const std::string& content) {
    auto workspace = leases_->workspace(lease, 0);
    ASSERT_TRUE(workspace) << workspace.error().message;
    ASSERT_TRUE((*workspace)->beginChange());
    writeFile((*workspace)->path() + "/f", content);
  }
  std::string latest() const { return readFile(dir_ / "store/cache/npm/f"); }
  bool waitUntil(const std::function<bool()>& done) {
    for (int i = 0; i < 10000; ++i) {
      if (done()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Leases> leases_;
  const CacheName name_ = *CacheName::parse("npm");
};

TEST_F(LeasesTest, ReadingTheLinkCopiesNothing) {
  const Sleeper job;
  auto lease = leases_->follow(name_, job.requester());
  ASSERT_TRUE(lease);
  EXPECT_EQ(*lease, "npm.1");
  EXPECT_TRUE(leases_->list().empty());
  EXPECT_FALSE(store_->hasCache(name_));
  EXPECT_EQ(leases_->cacheNames(), std::vector<std::string>{"npm"})
      << "listed from its first lease";
  ASSERT_TRUE(leases_->workspace(*lease, 0));
  EXPECT_EQ(leases_->list().size(), 1U);
}

TEST_F(LeasesTest, AJobSharesOneLeaseWithItsProcesses) {
  const Sleeper leader;
  const Sleeper member(leader.pid());
  const Sleeper stranger;
  const auto a = leases_->follow(name_, leader.requester());
  const auto b = leases_->follow(name_, member.requester());
  const auto c = leases_->follow(name_, stranger.requester());
  ASSERT_TRUE(a && b && c);
  EXPECT_EQ(*a, *b);
  EXPECT_NE(*a, *c);
}

TEST_F(LeasesTest, DescendantsShareItWhateverTheirGroup) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd readEnd(ends[0]);
  const UniqueFd writeEnd(ends[1]);
  const pid_t parent = ::fork();
  if (parent == 0) {
    ::setpgid(0, 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::setsid();
      for (;;) ::pause();
    }
    (void)!::write(ends[1], &child, sizeof child);
    for (;;) ::pause();
  }
  pid_t child = 0;
  ASSERT_EQ(::read(ends[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  ASSERT_TRUE(waitUntil([&] { return readProcess(child)->group == child; }));
  Requester asParent;
  asParent.pid = parent;
  Requester asChild;
  asChild.pid = child;
  const auto first = leases_->follow(name_, asParent);
  const auto second = leases_->follow(name_, asChild);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(*first, *second);
  change(*first, "x");
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(leases_->find(*first)) << "a descendant that joined keeps it";
  ::kill(child, SIGKILL);
  EXPECT_TRUE(waitUntil([&] { return latest() == "x"; }));
}

TEST_F(LeasesTest, TheDaemonItselfIsNoJob) {
  Requester self;
  self.pid = ::getpid();
  EXPECT_EQ(leases_->follow(name_, self).error().code, ESRCH);
}

TEST_F(LeasesTest, IsPublishedWhenTheJobHasEnded) {
  Sleeper leader;
  Sleeper member(leader.pid());
  const auto lease = leases_->follow(name_, leader.requester());
  ASSERT_TRUE(lease);
  change(*lease, "one");
  leader.end();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(leases_->find(*lease)) << "a process is left in the group";
  member.end();
  EXPECT_TRUE(waitUntil([&] { return latest() == "one"; }));
  EXPECT_TRUE(waitUntil([&] { return !leases_->find(*lease); }));
}

TEST_F(LeasesTest, AZombieHoldsNothing) {
  const Sleeper job;
  const auto lease = leases_->follow(name_, job.requester());
  ASSERT_TRUE(lease);
  change(*lease, "one");
  job.kill();  // and nobody waits for it yet
  EXPECT_TRUE(waitUntil([&] { return latest() == "one"; }));
}

TEST_F(LeasesTest, IsNotReleasedWhileSomethingInItIsOpen) {
  Sleeper job;
  const auto lease = leases_->follow(name_, job.requester());
  change(*lease, "one");
  auto workspace = *leases_->workspace(*lease, 0);
  workspace->opened(false);
  job.end();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(leases_->find(*lease));
  workspace->closed(false);
  EXPECT_TRUE(waitUntil([&] { return latest() == "one"; }));
}

TEST_F(LeasesTest, TwoCommandsInARowSeeEachOther) {
  for (int i = 0; i < 20; ++i) {
    Sleeper job;
    const auto lease = leases_->follow(name_, job.requester());
    ASSERT_TRUE(lease);
    auto workspace = leases_->workspace(*lease, 0);
    ASSERT_TRUE(workspace);
    EXPECT_EQ(readFile((*workspace)->path() + "/f"), i > 0 ? std::to_string(i - 1) : "(none)");
    change(*lease, std::to_string(i));
    job.end();
  }
}

TEST_F(LeasesTest, BelongsToItsHoldersUidAndRoot) {
  const Sleeper job;
  const auto lease = leases_->follow(name_, job.requester(1000));
  ASSERT_TRUE(lease);
  EXPECT_EQ(leases_->workspace(*lease, 1001).error().code, EACCES);
  EXPECT_EQ(leases_->release(*lease, 1001, false).error().code, EACCES);
  EXPECT_TRUE(leases_->workspace(*lease, 1000));
  EXPECT_TRUE(leases_->workspace(*lease, 0));
}

TEST_F(LeasesTest, ReleaseTellsWhatCameOfIt) {
  const Sleeper one;
  const Sleeper two;
  const auto a = leases_->follow(name_, one.requester());
  const auto b = leases_->follow(name_, two.requester());
  change(*a, "a");
  change(*b, "b");
  auto won = leases_->release(*a, 0, false);
  ASSERT_TRUE(won);
  EXPECT_EQ(won->outcome, Release::Outcome::published);
  auto lost = leases_->release(*b, 0, false);
  ASSERT_TRUE(lost);
  EXPECT_EQ(lost->outcome, Release::Outcome::discarded);
  EXPECT_EQ(lost->winner, "job " + std::to_string(one.pid()) + " (uid 0)");
  EXPECT_EQ(leases_->release(*a, 0, false).error().code, ENOENT);
  uint64_t from = 0;
  const std::string events = store_->events().read(from, 1 << 20);
  EXPECT_NE(events.find("\"state\":\"discarded\""), std::string::npos) << events;
}

TEST_F(LeasesTest, ReleaseIsBusyWhileAFileIsOpenForWriting) {
  const Sleeper job;
  const auto lease = leases_->follow(name_, job.requester());
  change(*lease, "a");
  auto workspace = *leases_->workspace(*lease, 0);
  workspace->opened(true);
  EXPECT_EQ(leases_->release(*lease, 0, false).error().code, EBUSY);
  workspace->closed(true);
  EXPECT_TRUE(leases_->release(*lease, 0, false));
}

TEST_F(LeasesTest, ReleaseWaitsForACloseThatIsOnItsWay) {
  const Sleeper job;
  const auto lease = leases_->follow(name_, job.requester());
  change(*lease, "a");
  auto workspace = *leases_->workspace(*lease, 0);
  workspace->opened(true);
  std::thread kernel([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    workspace->closed(true);
  });
  EXPECT_TRUE(leases_->release(*lease, 0, false));
  kernel.join();
}

TEST_F(LeasesTest, AHandleHoldsItUntilItIsClosed) {
  const Sleeper job;
  auto lease = leases_->forHandle(name_, job.requester(), 77, false);
  ASSERT_TRUE(lease);
  change(lease->lease, "h");
  EXPECT_EQ(*leases_->follow(name_, job.requester()), lease->lease) << "its process shares it";
  leases_->closeHandle(77);
  EXPECT_TRUE(waitUntil([&] { return latest() == "h"; }));
}

TEST_F(LeasesTest, AHandleThatDiscardsPublishesOnlyWhatIsReleased) {
  const Sleeper job;
  auto lost = leases_->forHandle(name_, job.requester(), 77, true);
  ASSERT_TRUE(lost);
  change(lost->lease, "half");
  leases_->closeHandle(77);
  EXPECT_TRUE(waitUntil([&] { return !leases_->find(lost->lease); }));
  auto kept = leases_->forHandle(name_, job.requester(), 78, true);
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->generation, 0u);
  change(kept->lease, "whole");
  EXPECT_TRUE(leases_->release(kept->lease, 0, false));
  EXPECT_EQ(latest(), "whole");
  auto left = leases_->forHandle(name_, job.requester(), 79, true);
  ASSERT_TRUE(left);
  change(left->lease, "half again");
  leases_.reset();
  EXPECT_EQ(latest(), "whole");
}

TEST_F(LeasesTest, ATagLastsUntilReleasedAndIsFoundAgain) {
  auto first = leases_->forTag(name_, Sleeper().requester(), "ci", {});
  auto again = leases_->forTag(name_, Sleeper().requester(), "ci", {});
  auto other = leases_->forTag(name_, Sleeper().requester(), "other", {});
  ASSERT_TRUE(first && again && other);
  EXPECT_EQ(first->lease, again->lease);
  EXPECT_NE(first->lease, other->lease);
  change(first->lease, "t");
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_TRUE(leases_->find(first->lease));
  EXPECT_TRUE(leases_->release(first->lease, 0, false));
  EXPECT_EQ(latest(), "t");
}

TEST_F(LeasesTest, ATagEndsWithItsTimeToLive) {
  auto lease = leases_->forTag(name_, Sleeper().requester(), "ci", std::chrono::seconds(0));
  ASSERT_TRUE(lease);
  EXPECT_TRUE(waitUntil([&] { return !leases_->find(lease->lease); }));
}

TEST_F(LeasesTest, DescendantsOfABuildShareItsLease) {
  auto lease = leases_->forBuild(name_, Requester{}, *Id::parse("x"));
  ASSERT_TRUE(lease);
  const Sleeper supervisor;
  leases_->bindProcess(lease->lease, supervisor.pid());
  EXPECT_EQ(*leases_->follow(name_, supervisor.requester()), lease->lease);
}

TEST_F(LeasesTest, WhatIsLeftIsPublishedAtTheEnd) {
  const Sleeper job;
  change(*leases_->follow(name_, job.requester()), "end");
  leases_.reset();
  EXPECT_EQ(latest(), "end");
  ASSERT_TRUE(store_->completeDeletes());
  EXPECT_EQ(entries(dir_ / "store/cache-tmp"), 0U);
}

TEST(JobsTest, SeesThisProcess) {
  const auto self = readProcess(::getpid());
  ASSERT_TRUE(self);
  EXPECT_EQ(self->parent, ::getppid());
  EXPECT_EQ(self->group, ::getpgrp());
  EXPECT_TRUE(alive(jobOf(*self)));
  EXPECT_FALSE(readProcess(0));
  const auto chain = ancestry(::getpid());
  ASSERT_GE(chain.size(), 2U);
  EXPECT_EQ(chain[1].pid, ::getppid());
}

TEST(JobsTest, AGroupNumberThatWasReusedIsAnotherJob) {
  const Sleeper process;
  const auto info = readProcess(process.pid());
  ASSERT_TRUE(info);
  Job job = jobOf(*info);
  EXPECT_TRUE(alive(job));
  ++job.leaderStart;
  EXPECT_FALSE(alive(job));
}

}  // namespace
}  // namespace kilnfs
