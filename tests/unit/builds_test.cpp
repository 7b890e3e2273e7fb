// Builds on a real store, without a mount: commands run in the tmpdir's path on disk.
#include "store/build/builds.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <condition_variable>
#include <future>
#include <thread>

#include "store/build/sources.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using std::chrono::milliseconds;
using testing::entries;
using testing::exists;
using testing::readFile;
using testing::TempDir;
using testing::writeFile;

Id id(const std::string& text) {
  return *Id::parse(text);
}

class BuildsTest : public ::testing::Test {
 protected:
  explicit BuildsTest(unsigned jobs = 2) {
    auto store = Store::create(dir_ / "store", {{}, "", true});
    EXPECT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
    leases_ = Leases::create(*store_, {});
    Builds::Options options;
    options.jobs = jobs;
    options.supervisor = KILN_SUPERVISE;
    options.grace = milliseconds(200);
    builds_ = Builds::create(*store_, *leases_, options);
    me_.uid = ::geteuid();
    me_.gid = ::getegid();
    me_.cwd = dir_.path();
  }

  BuildRequest request(const std::string& name, const std::string& shell,
                       const std::string& base = {}) const {
    BuildRequest out;
    if (!name.empty()) out.id = id(name);
    if (!base.empty()) out.base = id(base);
    out.argv = {"/bin/sh", "-c", shell};
    return out;
  }
  BuildStatus run(const BuildRequest& what) {
    auto status = builds_->run(what, me_, interrupt_);
    EXPECT_TRUE(status) << status.error().message;
    return status ? *status : BuildStatus{id("none")};
  }
  BuildStatus run(const std::string& name, const std::string& shell, const std::string& base = {}) {
    return run(request(name, shell, base));
  }
  BuildStatus submit(const BuildRequest& what) {
    auto status = builds_->submit(what, me_, interrupt_);
    EXPECT_TRUE(status) << status.error().message;
    return status ? *status : BuildStatus{id("none")};
  }
  BuildStatus wait(const std::string& name) {
    Interrupt none;
    auto status = builds_->wait(id(name), none);
    EXPECT_TRUE(status) << status.error().message;
    return status ? *status : BuildStatus{id("none")};
  }
  std::string result(const std::string& below) const {
    return readFile(dir_ / ("store/result/" + below));
  }
  std::string log(const std::string& name) const { return readFile(dir_ / ("store/log/" + name)); }
  void awaitFile(const std::string& path) {
    while (!exists(path)) std::this_thread::sleep_for(milliseconds(2));
  }
  /// A shell command that says that it runs and waits until it may go on.
  std::string gate(const std::string& name) const {
    return "touch " + (dir_ / (name + ".runs")) + "; until test -e " + (dir_ / (name + ".go")) +
           "; do sleep 0.01; done; ";
  }
  void awaitGate(const std::string& name) { awaitFile(dir_ / (name + ".runs")); }
  void openGate(const std::string& name) { writeFile(dir_ / (name + ".go"), ""); }
  std::string workInProgress() const {
    builds_->stop();
    EXPECT_TRUE(store_->completeDeletes());
    std::string out;
    for (const char* area : {"result-tmp", "cache-tmp"}) {
      for (const auto& entry :
           std::filesystem::directory_iterator(dir_ / ("store/" + std::string(area)))) {
        out += entry.path().filename().string() + " ";
      }
    }
    return out;
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Leases> leases_;
  std::unique_ptr<Builds> builds_;
  Requester me_;
  Interrupt interrupt_;
};

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

// -- copies and automatic ids

TEST_F(BuildsTest, CopiesTreesAndFiles) {
  std::filesystem::create_directories(dir_ / "src/sub");
  writeFile(dir_ / "src/sub/f", "f");
  writeFile(dir_ / "one", "1");
  BuildRequest what = request("a", "find . | sort");
  what.copies = {{"src", ""}, {"src", "x/y"}, {"one", ""}, {"one", "z/two"}, {dir_ / "one", "z/"}};
  EXPECT_EQ(run(what).state, BuildState::saved);
  EXPECT_EQ(log("a"),
            ".\n./one\n./sub\n./sub/f\n./x\n./x/y\n./x/y/sub\n./x/y/sub/f\n./z\n./z/one\n"
            "./z/two\n");
}

TEST_F(BuildsTest, AMissingSourceIsRefusedAtOnce) {
  BuildRequest what = request("a", "true");
  what.copies = {{"absent", ""}};
  EXPECT_EQ(builds_->submit(what, me_, interrupt_).error().code, ENOENT);
  Requester lost = me_;
  lost.cwd.clear();
  EXPECT_EQ(builds_->submit(what, lost, interrupt_).error().code, EINVAL);
}

TEST_F(BuildsTest, CopiesNeverFollowLinksOfTheBase) {
  TempDir outside;
  writeFile(dir_ / "one", "1");
  run("base", "ln -s " + outside.path() + " way");
  for (const char* destination : {"way/", "way/one", "way"}) {
    BuildRequest what = request("a", "true", "base");
    what.copies = {{"one", destination}};
    EXPECT_EQ(run(what).state, BuildState::failed) << destination;
  }
  EXPECT_EQ(entries(outside.path()), 0U);
}

TEST_F(BuildsTest, TheSameRequestIsTheSameId) {
  writeFile(dir_ / "one", "1");
  BuildRequest what = request("", "cat one");
  what.copies = {{"one", ""}};
  what.env = {"A=1", "B=2"};
  const BuildStatus first = run(what);
  EXPECT_EQ(first.id.str().size(), 64U);
  EXPECT_EQ(first.state, BuildState::saved);
  std::swap(what.env[0], what.env[1]);
  const BuildStatus second = run(what);
  EXPECT_TRUE(second.cached);
  EXPECT_EQ(first.id, second.id);
}

TEST_F(BuildsTest, WhateverDeterminesTheResultChangesTheId) {
  std::filesystem::create_directory(dir_ / "src");
  writeFile(dir_ / "src/f", "1");
  Sources sources(*store_, "");
  std::vector<std::string> ids;
  BuildRequest what = request("", "true");
  what.copies = {{"src", ""}};
  Account account;
  account.uid = ::geteuid();
  account.gid = ::getegid();
  const auto add = [&] {
    const auto made = sources.automaticId(what, me_, account, interrupt_);
    ASSERT_TRUE(made) << made.error().message;
    ids.push_back(made->str());
  };
  add();
  writeFile(dir_ / "src/f", "2");
  add();
  writeFile(dir_ / "src/f", "22");
  add();
  ::chmod((dir_ / "src/f").c_str(), 0755);
  add();
  ASSERT_EQ(::symlink("f", (dir_ / "src/l").c_str()), 0);
  add();
  ::unlink((dir_ / "src/l").c_str());
  ASSERT_EQ(::symlink("g", (dir_ / "src/l").c_str()), 0);
  add();
  std::filesystem::create_directory(dir_ / "src/d");
  add();
  std::filesystem::rename(dir_ / "src/f", dir_ / "src/e");
  add();
  what.copies[0].destination = "x";
  add();
  what.argv.push_back("");
  add();
  what.env = {"A=1"};
  add();
  what.base = id("base");
  add();
  what.caches = {{id("npm"), ""}};
  add();
  account.gid += 1;
  add();
  const size_t made = ids.size();
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(made, 14U);
  EXPECT_EQ(std::unique(ids.begin(), ids.end()), ids.end());
}

TEST_F(BuildsTest, SourcesAreReadWithTheUsersRights) {
  if (::geteuid() != 0) GTEST_SKIP() << "declared: needs root";
  writeFile(dir_ / "secret", "s");
  ::chmod((dir_ / "secret").c_str(), 0600);
  ::chmod(dir_.path().c_str(), 0755);
  Requester other;
  other.uid = 12345;
  other.gid = 12345;
  other.cwd = dir_.path();
  BuildRequest what = request("", "true");
  what.copies = {{"secret", ""}};
  EXPECT_EQ(builds_->submit(what, other, interrupt_).error().code, EACCES);
  EXPECT_EQ(readFile(dir_ / "secret"), "s") << "our own rights are back";
}

TEST_F(BuildsTest, NobodyButRootNamesAnotherUser) {
  Requester other;
  other.uid = 12345;
  other.gid = 12345;
  BuildRequest what = request("a", "true");
  what.user = User{0, 0};
  EXPECT_EQ(builds_->submit(what, other, interrupt_).error().code, EPERM);
  what.user = User{12345, 0};
  EXPECT_EQ(builds_->submit(what, other, interrupt_).error().code, EPERM);
}

// -- caches

TEST_F(BuildsTest, ACacheIsLinkedWhileTheCommandRunsAndPublished) {
  BuildRequest what =
      request("a", "test -L .cache/npm && echo 1 >.cache/npm/f; echo 2 >npm/g; ls -A");
  what.caches = {{id("npm"), ".cache/npm"}, {id("npm"), ""}};
  EXPECT_EQ(run(what).state, BuildState::saved);
  EXPECT_EQ(log("a"), ".cache\nnpm\n");
  EXPECT_FALSE(exists(dir_ / "store/result/a/npm"));
  EXPECT_FALSE(exists(dir_ / "store/result/a/.cache/npm"));
  EXPECT_EQ(readFile(dir_ / "store/cache/npm/f"), "1\n");
  EXPECT_EQ(readFile(dir_ / "store/cache/npm/g"), "2\n");
  EXPECT_TRUE(leases_->list().empty());
}

TEST_F(BuildsTest, ACacheIsPublishedAlsoWhenTheCommandFails) {
  BuildRequest what = request("a", "echo 1 >npm/f; exit 1");
  what.caches = {{id("npm"), ""}};
  EXPECT_EQ(run(what).state, BuildState::failed);
  EXPECT_EQ(readFile(dir_ / "store/cache/npm/f"), "1\n");
}

TEST_F(BuildsTest, ACacheIsDiscardedWhenTheCommandWasKilled) {
  BuildRequest what = request("a", "echo 1 >npm/f; kill -9 $$");
  what.caches = {{id("npm"), ""}};
  EXPECT_EQ(run(what).signal, SIGKILL);
  what = request("b", "echo 1 >npm/f; " + gate("b"));
  what.caches = {{id("npm"), ""}};
  submit(what);
  awaitGate("b");
  EXPECT_TRUE(builds_->cancel(id("b"), me_));
  wait("b");
  what = request("c", "trap 'exit 0' TERM; echo 1 >npm/f; while :; do sleep 0.01; done");
  what.caches = {{id("npm"), ""}};
  what.timeout = milliseconds(300);
  EXPECT_EQ(run(what).state, BuildState::timedOut);
  EXPECT_FALSE(exists(dir_ / "store/cache/npm/f"));
  EXPECT_TRUE(leases_->list().empty());
}

// -- import and export

TEST_F(BuildsTest, ImportAndExportLoseNothing) {
  std::filesystem::create_directories(dir_ / "tree/d");
  writeFile(dir_ / "tree/f", "f");
  ASSERT_EQ(::link((dir_ / "tree/f").c_str(), (dir_ / "tree/d/g").c_str()), 0);
  ASSERT_EQ(::symlink("/nowhere", (dir_ / "tree/l").c_str()), 0);
  ASSERT_EQ(::mkfifo((dir_ / "tree/p").c_str(), 0640), 0);
  ASSERT_TRUE(builds_->importTree(id("a"), "tree", me_, interrupt_));
  EXPECT_EQ(builds_->importTree(id("a"), "tree", me_, interrupt_).error().code, EEXIST);
  ASSERT_TRUE(builds_->exportTree(id("a"), "out", me_, interrupt_));
  const std::string compare =
      "test -z \"$(rsync -naHAXic --delete " + (dir_ / "tree/") + " " + (dir_ / "out/") + ")\"";
  EXPECT_EQ(::system(compare.c_str()), 0);
  EXPECT_EQ(builds_->exportTree(id("a"), "out", me_, interrupt_).error().code, ENOTEMPTY);
  EXPECT_EQ(builds_->exportTree(id("a"), "no/such", me_, interrupt_).error().code, ENOENT);
  EXPECT_EQ(builds_->exportTree(id("a"), "tree/f", me_, interrupt_).error().code, ENOTDIR);
  EXPECT_EQ(builds_->exportTree(id("none"), "x", me_, interrupt_).error().code, ENOENT);
  EXPECT_EQ(builds_->importTree(id("b"), "absent", me_, interrupt_).error().code, ENOENT);
  EXPECT_EQ(builds_->importTree(id("b"), "tree/f", me_, interrupt_).error().code, ENOTDIR);
  EXPECT_EQ(builds_->wait(id("a"), interrupt_)->state, BuildState::saved);
}

TEST_F(BuildsTest, AnInterruptedImportLeavesNothing) {
  std::filesystem::create_directory(dir_ / "tree");
  Interrupt raised;
  raised.raise();
  EXPECT_EQ(builds_->importTree(id("a"), "tree", me_, raised).error().code, EINTR);
  EXPECT_FALSE(store_->hasResult(id("a")));
  EXPECT_FALSE(builds_->underWay(id("a")));
  EXPECT_EQ(workInProgress(), "");
}

}  // namespace
}  // namespace kilnfs
