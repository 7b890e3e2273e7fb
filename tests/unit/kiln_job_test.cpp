#include "tools/kiln/job.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

namespace kilnfs {
namespace {

using std::chrono::milliseconds;

JobEnd run(const std::string& script, std::optional<milliseconds> timeout = {}) {
  const HeldSignals held;
  const auto end = runJob({"sh", "-c", script}, timeout, held);
  EXPECT_TRUE(end) << end.error().message;
  return end.value_or(JobEnd{});
}

TEST(KilnJob, ExitStatus) {
  EXPECT_EQ(run("exit 0").exit, 0);
  EXPECT_EQ(run("exit 42").exit, 42);
  EXPECT_EQ(run("exit 42").signal, 0);
}

TEST(KilnJob, Signal) {
  EXPECT_EQ(run("kill -9 $$").signal, SIGKILL);
}

TEST(KilnJob, AGroupOfItsOwn) {
  EXPECT_EQ(run("test \"$(ps -o pgid= -p $$ | tr -d ' ')\" = $$").exit, 0);
}

TEST(KilnJob, SignalsOfTheCommandAreAsTheyWere) {
  EXPECT_EQ(run("grep -q '^SigBlk:.0*$' /proc/self/status").exit, 0);
  EXPECT_EQ(run("kill -PIPE $$; exit 1").signal, SIGPIPE);
}

TEST(KilnJob, EndsThoughKilnsParentIgnoredItsChildren) {
  const auto former = signal(SIGCHLD, SIG_IGN);
  alarm(30);
  EXPECT_EQ(run("exit 42").exit, 42);
  alarm(0);
  signal(SIGCHLD, former);
}

TEST(KilnJob, WhatCannotBeStartedIsAnError) {
  const HeldSignals held;
  const auto end = runJob({"/nonexistent/program"}, {}, held);
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, ENOENT);
}

TEST(KilnJob, ATimeoutKillsTheGroup) {
  const auto end = run("sleep 1000 & sleep 1000", milliseconds(50));
  EXPECT_TRUE(end.timedOut);
  EXPECT_EQ(end.signal, SIGTERM);
}

TEST(KilnJob, ASignalToKilnGoesToTheJob) {
  // Pending before the job starts, so it is passed on as soon as kiln looks.
  const HeldSignals held;
  kill(getpid(), SIGTERM);
  const auto end = runJob({"sh", "-c", "sleep 1000"}, {}, held);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->signal, SIGTERM);
  EXPECT_FALSE(end->timedOut);
}

}  // namespace
}  // namespace kilnfs
