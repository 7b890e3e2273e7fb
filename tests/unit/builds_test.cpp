// Queueing, running, joining and ending builds.
#include "store/build/builds.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <future>

#include "tests/support/builds_fixture.h"
#include "tests/support/meanwhile.h"

namespace kilnfs {
namespace {

using std::chrono::milliseconds;
using testing::BuildsTest;
using testing::exists;
using testing::id;
using testing::readFile;

class OneJobTest : public BuildsTest {
 protected:
  OneJobTest() : BuildsTest(1) {}
};

TEST_F(BuildsTest, ASuccessfulBuildIsSavedAndItsLogIsItsOutput) {
  const BuildStatus status = run("a", "echo hi >file; echo out; echo err >&2; printf end");
  EXPECT_EQ(status.state, BuildState::saved);
  EXPECT_EQ(status.exit, 0);
  EXPECT_FALSE(status.cached);
  EXPECT_GT(status.ended, 0);
  EXPECT_EQ(result("a/file"), "hi\n");
  EXPECT_EQ(log("a"), "out\nerr\nend");
  EXPECT_FALSE(builds_->underWay(id("a")));
}

TEST_F(BuildsTest, WhatIsStoredIsAnsweredAtOnce) {
  run("a", "echo 1 >file");
  const BuildStatus status = run("a", "echo 2 >file");
  EXPECT_EQ(status.state, BuildState::saved);
  EXPECT_TRUE(status.cached);
  EXPECT_EQ(result("a/file"), "1\n");
  EXPECT_EQ(builds_->totals().cached, 1U);
  EXPECT_EQ(builds_->totals().saved, 1U);
}

TEST_F(BuildsTest, AFailedBuildLeavesItsLogAndNothingElse) {
  const BuildStatus status = run("a", "echo trying >file; printf oops; exit 3");
  EXPECT_EQ(status.state, BuildState::failed);
  EXPECT_EQ(status.exit, 3);
  EXPECT_FALSE(store_->hasResult(id("a")));
  EXPECT_EQ(log("a"), "oops\nkilnfs: the command exited with status 3\n");
  EXPECT_EQ(wait("a").exit, 3);
  EXPECT_EQ(run("a", "echo ok").state, BuildState::saved) << "the next request builds again";
  EXPECT_EQ(log("a"), "ok\n");
}

TEST_F(BuildsTest, ACommandThatDiesOfASignalFails) {
  const BuildStatus status = run("a", "kill -9 $$");
  EXPECT_EQ(status.state, BuildState::failed);
  EXPECT_EQ(status.signal, SIGKILL);
  EXPECT_FALSE(status.exit);
}

TEST_F(BuildsTest, ACommandThatCannotRunFailsWithoutAStatus) {
  BuildRequest what = request("a", "");
  what.argv = {"no-such-program"};
  const BuildStatus status = run(what);
  EXPECT_EQ(status.state, BuildState::failed);
  EXPECT_FALSE(status.exit || status.signal);
  EXPECT_NE(log("a").find("kilnfs: the command run no-such-program: No such file"),
            std::string::npos)
      << log("a");
}

TEST_F(BuildsTest, TheEnvironmentIsCleanAndTold) {
  BuildRequest what = request("a", "env | sort; pwd");
  what.env = {"B=2", "A=1", "A=3", "PATH=/bin:/usr/bin", "EMPTY="};
  ::setenv("KILNFS_TEST_LEAK", "1", 1);
  run(what);
  const std::string text = log("a");
  EXPECT_NE(text.find("A=3\nB=2\nEMPTY=\nHOME="), std::string::npos) << text;
  EXPECT_NE(text.find("KILN_BUILD_ID=a\n"), std::string::npos);
  EXPECT_NE(text.find("PATH=/bin:/usr/bin\n"), std::string::npos);
  EXPECT_EQ(text.find("LEAK"), std::string::npos);
  EXPECT_NE(text.find("result-tmp"), std::string::npos) << "the tmpdir is where it runs";
}

TEST_F(BuildsTest, ABaseIsTheStartingPoint) {
  run("a", "echo 1 >file");
  EXPECT_EQ(run("b", "echo 2 >>file", "a").state, BuildState::saved);
  EXPECT_EQ(result("a/file"), "1\n");
  EXPECT_EQ(result("b/file"), "1\n2\n");
}

TEST_F(BuildsTest, AnUnknownBaseIsRefused) {
  const auto status = builds_->run(request("a", "true", "nothing"), me_, interrupt_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ENOENT);
  EXPECT_NE(status.error().message.find("nothing"), std::string::npos);
  EXPECT_EQ(builds_->run(request("a", "true", "a"), me_, interrupt_).error().code, EINVAL);
  EXPECT_FALSE(builds_->status(id("a")));
}

TEST_F(OneJobTest, AWholeGraphCanBeSubmittedAtOnce) {
  submit(request("r", gate("r") + "echo r >log"));
  for (const char* mid : {"m1", "m2", "m3"}) {
    submit(request(mid, std::string("echo ") + mid + " >>log", "r"));
    EXPECT_EQ(builds_->status(id(mid))->state, BuildState::queued);
    for (const char* leaf : {"x", "y"}) {
      submit(request(mid + std::string(leaf), "echo leaf >>log", mid));
    }
  }
  awaitGate("r");
  openGate("r");
  for (const char* leaf : {"m1x", "m1y", "m2x", "m2y", "m3x", "m3y"}) {
    EXPECT_EQ(wait(leaf).state, BuildState::saved);
  }
  EXPECT_EQ(result("m2y/log"), "r\nm2\nleaf\n");
}

TEST_F(OneJobTest, AChainOfSixty) {
  submit(request("c0", "echo 0 >n"));
  for (int i = 1; i < 60; ++i) {
    submit(request("c" + std::to_string(i), "echo " + std::to_string(i) + " >n",
                   "c" + std::to_string(i - 1)));
  }
  EXPECT_EQ(wait("c59").state, BuildState::saved);
  EXPECT_EQ(result("c59/n"), "59\n");
}

TEST_F(BuildsTest, AFailingBaseFailsAllThatNeedIt) {
  submit(request("r", gate("r") + "exit 1"));
  submit(request("m", "true", "r"));
  submit(request("l", "true", "m"));
  openGate("r");
  const BuildStatus status = wait("l");
  EXPECT_EQ(status.state, BuildState::failed);
  EXPECT_NE(status.message.find("base m was not built"), std::string::npos);
  EXPECT_EQ(wait("m").message, "its base r was not built: failed");
  EXPECT_FALSE(builds_->underWay(id("m")));
}

TEST_F(BuildsTest, ABuildUnderWayIsJoinedNotBuiltTwice) {
  const std::string count = "echo x >>" + (dir_ / "count") + "; ";
  submit(request("a", count + gate("a")));
  awaitGate("a");
  std::vector<std::future<BuildStatus>> others;
  for (int i = 0; i < 8; ++i) {
    others.push_back(std::async(std::launch::async, [&] { return run("a", count); }));
  }
  while (builds_->totals().joined < 8) std::this_thread::sleep_for(milliseconds(2));
  openGate("a");
  for (auto& other : others) EXPECT_EQ(other.get().state, BuildState::saved);
  EXPECT_EQ(readFile(dir_ / "count"), "x\n");
}

TEST_F(BuildsTest, AtMostJobsRunAtATime) {
  for (const char* name : {"a", "b", "c"}) submit(request(name, gate(name)));
  awaitGate("a");
  awaitGate("b");
  EXPECT_EQ(builds_->status(id("c"))->state, BuildState::queued);
  EXPECT_FALSE(exists(dir_ / "c.runs"));
  openGate("a");
  awaitGate("c");
  openGate("b");
  openGate("c");
  EXPECT_EQ(wait("c").state, BuildState::saved);
  const auto all = builds_->list();
  EXPECT_EQ(all.size(), 3U);
}

TEST_F(BuildsTest, CancelledWhenItsLastWaiterLeft) {
  Interrupt first;
  Interrupt second;
  auto one = std::async(std::launch::async,
                        [&] { return builds_->run(request("a", gate("a")), me_, first); });
  awaitGate("a");
  auto two = std::async(std::launch::async, [&] { return builds_->wait(id("a"), second); });
  // The second waiter is inside once leaving of the first does not end the build; it may come late,
  // so it is given a sure sign: joined by a request.
  Interrupt third;
  auto three =
      std::async(std::launch::async, [&] { return builds_->run(request("a", ""), me_, third); });
  while (builds_->totals().joined < 1) std::this_thread::sleep_for(milliseconds(2));
  first.raise();
  EXPECT_EQ(one.get().error().code, EINTR);
  EXPECT_TRUE(builds_->underWay(id("a")));
  second.raise();
  EXPECT_EQ(two.get().error().code, EINTR);
  EXPECT_TRUE(builds_->underWay(id("a")));
  third.raise();
  EXPECT_EQ(three.get().error().code, EINTR);
  EXPECT_EQ(wait("a").state, BuildState::cancelled);
  EXPECT_NE(log("a").find("kilnfs: the build was cancelled\n"), std::string::npos);
}

TEST_F(BuildsTest, SubmittedBuildsOutliveTheirWaiters) {
  submit(request("a", gate("a")));
  Interrupt first;
  auto one = std::async(std::launch::async, [&] { return builds_->wait(id("a"), first); });
  first.raise();
  EXPECT_EQ(one.get().error().code, EINTR);
  openGate("a");
  EXPECT_EQ(wait("a").state, BuildState::saved);
}

TEST_F(OneJobTest, ABaseNobodyNeedsAnyMoreIsCancelledToo) {
  submit(request("block", gate("block")));
  awaitGate("block");
  Interrupt first;
  Interrupt second;
  auto base = std::async(std::launch::async,
                         [&] { return builds_->run(request("r", "true"), me_, first); });
  while (!builds_->underWay(id("r"))) std::this_thread::sleep_for(milliseconds(2));
  auto leaf = std::async(std::launch::async,
                         [&] { return builds_->run(request("l", "true", "r"), me_, second); });
  while (!builds_->underWay(id("l"))) std::this_thread::sleep_for(milliseconds(2));
  first.raise();
  EXPECT_FALSE(base.get());
  EXPECT_TRUE(builds_->underWay(id("r"))) << "l needs it";
  second.raise();
  EXPECT_FALSE(leaf.get());
  EXPECT_EQ(wait("r").state, BuildState::cancelled);
  EXPECT_EQ(wait("l").state, BuildState::cancelled);
  openGate("block");
}

TEST_F(BuildsTest, CancelEndsTheCommandAndLeavesNothing) {
  submit(request("a", "setsid sleep 1000 & " + gate("a")));
  awaitGate("a");
  EXPECT_TRUE(builds_->cancel(id("a"), me_));
  EXPECT_EQ(wait("a").state, BuildState::cancelled);
  EXPECT_EQ(builds_->cancel(id("a"), me_).error().code, ENOENT);
  EXPECT_EQ(workInProgress(), "");
}

TEST_F(BuildsTest, OnlyItsOwnerOrRootCancels) {
  submit(request("a", gate("a")));
  Requester stranger;
  stranger.uid = 4242;
  EXPECT_EQ(builds_->cancel(id("a"), stranger).error().code, EACCES);
  EXPECT_TRUE(builds_->cancel(id("a"), me_));
}

TEST_F(BuildsTest, ATimeoutIsItsOwnState) {
  BuildRequest what = request("a", "trap '' TERM; echo up; while :; do sleep 0.01; done");
  what.timeout = milliseconds(200);
  const BuildStatus status = run(what);
  EXPECT_EQ(status.state, BuildState::timedOut);
  EXPECT_NE(log("a").find("kilnfs: the command timed out"), std::string::npos) << log("a");
}

TEST_F(BuildsTest, RetryBuildsOnceMore) {
  const std::string count = dir_ / "count";
  BuildRequest what =
      request("a", "echo x >>" + count + "; echo try; test $(wc -l <" + count + ") = 2");
  what.retry = true;
  EXPECT_EQ(run(what).state, BuildState::saved);
  EXPECT_EQ(log("a"), "try\n") << "the log of the last attempt";
  what = request("b", "echo x >>" + count + "b; exit 7");
  what.retry = true;
  EXPECT_EQ(run(what).exit, 7);
  EXPECT_EQ(readFile(count + "b"), "x\nx\n");
}

TEST_F(BuildsTest, WaitingForTheUnknownIsAnError) {
  const auto status = builds_->wait(id("nothing"), interrupt_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ENOENT);
}

TEST_F(BuildsTest, StoppedItRefusesAndCancels) {
  submit(request("a", gate("a")));
  submit(request("b", "true", "a"));
  awaitGate("a");
  builds_->stop();
  EXPECT_EQ(builds_->status(id("a"))->state, BuildState::cancelled);
  EXPECT_NE(builds_->status(id("b"))->state, BuildState::saved);
  EXPECT_EQ(builds_->submit(request("c", "true"), me_, interrupt_).error().code, ESHUTDOWN);
  EXPECT_EQ(workInProgress(), "");
}

// As when the mount goes away just when the daemon is told to end.
TEST_F(BuildsTest, WhoeverStopsItWaitsForItsEnd) {
  submit(request("a", gate("a")));
  awaitGate("a");
  std::vector<std::future<BuildState>> stoppers;
  for (int i = 0; i < 4; ++i) {
    stoppers.push_back(std::async(std::launch::async, [&] {
      builds_->stop();
      return builds_->status(id("a"))->state;
    }));
  }
  for (auto& stopper : stoppers) EXPECT_EQ(stopper.get(), BuildState::cancelled);
}

TEST_F(BuildsTest, EventsTellEachChangeInOrder) {
  run("a", "true");
  uint64_t from = 0;
  const std::string text = store_->events().read(from, 1 << 20);
  const size_t queued = text.find("\"id\":\"a\",\"pid\":0,\"seq\":1,\"state\":\"queued\"");
  const size_t running = text.find("\"state\":\"running\"");
  const size_t saved = text.rfind("\"state\":\"saved\"");
  EXPECT_LT(queued, running) << text;
  EXPECT_LT(running, saved) << text;
  EXPECT_NE(saved, std::string::npos);
}

TEST_F(BuildsTest, TheBaseOfAQueuedBuildIsNotPruned) {
  run("base", "echo 1 > f");
  run("other", "echo 1 > f");
  submit(request("a", gate("a")));
  submit(request("b", gate("b")));
  awaitGate("a");
  awaitGate("b");
  PruneLimits none;
  none.maxCount = 0;
  {
    const testing::Meanwhile queue("prune.chosen",
                                   [&] { submit(request("x", "cat f > g", "base")); });
    ASSERT_TRUE(store_->prune({none, false}, interrupt_));
  }
  EXPECT_TRUE(store_->hasResult(id("base")));
  openGate("a");
  openGate("b");
  EXPECT_EQ(wait("x").state, BuildState::saved);
  EXPECT_EQ(result("x/g"), "1\n");
  ASSERT_TRUE(store_->prune({none, false}, interrupt_));
  EXPECT_FALSE(store_->hasResult(id("base"))) << "nobody needs it any more";
}

}  // namespace
}  // namespace kilnfs
