// What goes into a build and comes out of it: copies, ids, users, caches, import and export.
#include "store/build/builds.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "store/build/sources.h"
#include "tests/support/builds_fixture.h"
#include "tests/support/tree_editor.h"

namespace kilnfs {
namespace {

using std::chrono::milliseconds;
using testing::BuildsTest;
using testing::entries;
using testing::exists;
using testing::id;
using testing::readFile;
using testing::TempDir;
using testing::writeFile;

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

// What a result shares with another one is not in its directory until it is plain.
TEST(AutomaticId, OfWhatIsCopiedFromAResultIsTheSameBeforeAndAfterThatIsPlain) {
  const TempDir dir;
  const auto store = Store::create(dir / "store", {Mode::copy, "", false});
  ASSERT_TRUE(store) << store.error().message;
  Interrupt interrupt;
  const auto build = [&](const std::string& name, const std::optional<Id>& base,
                         const std::function<void(testing::Editor&)>& edit) {
    return (*store)->build(id(name), base, User{::geteuid(), ::getegid()}, interrupt,
                           [&](const auto& tmp) -> Status {
                             testing::Editor editor(tmp);
                             edit(editor);
                             return {};
                           });
  };
  for (const std::string n : {"1", "2"}) {
    ASSERT_TRUE(build("base" + n, {}, [&](auto& e) {
      e.mkdir("d");
      e.mkdir("d/e");
      e.write("d/e/f", n);
    }));
    writeFile(dir / ("store/result/x" + n), "in the way of being made plain");
    ASSERT_TRUE(build("x" + n, id("base" + n), [](auto& e) { e.write("same", "same"); }));
  }
  const Sources sources(**store, "/mnt");
  Requester me;
  me.uid = ::geteuid();
  me.gid = ::getegid();
  Account account;
  account.uid = me.uid;
  account.gid = me.gid;
  const auto idOf = [&](const std::string& source) {
    BuildRequest what;
    what.argv = {"true"};
    what.copies = {{"/mnt/results/" + source, ""}};
    const auto made = sources.automaticId(what, me, account, interrupt);
    EXPECT_TRUE(made) << made.error().message;
    return made ? made->str() : "";
  };
  EXPECT_NE(idOf("x1"), idOf("x2"));
  EXPECT_NE(idOf("x1/d"), idOf("x2/d"));
  EXPECT_NE(idOf("x1/d/e/f"), idOf("x2/d/e/f"));
  const std::vector<std::string> before = {idOf("x1"), idOf("x1/d"), idOf("x1/d/e/f")};
  for (const char* name : {"x1", "x2"}) {
    std::filesystem::remove(dir / ("store/result/" + std::string(name)));
  }
  while (!(*store)->completeDeletes()) {
  }
  EXPECT_EQ((std::vector<std::string>{idOf("x1"), idOf("x1/d"), idOf("x1/d/e/f")}), before);
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

// The kernel goes through a link before "..".
TEST_F(BuildsTest, WhatIsHashedIsWhatIsCopied) {
  std::filesystem::create_directories(dir_ / "other/sub");
  ASSERT_EQ(::symlink("other/sub", (dir_ / "link").c_str()), 0);
  writeFile(dir_ / "f", "not this");
  writeFile(dir_ / "other/f", "1");
  BuildRequest what = request("", "true");
  what.copies = {{"link/../f", ""}};
  const BuildStatus first = run(what);
  EXPECT_EQ(result(first.id.str() + "/f"), "1");
  writeFile(dir_ / "other/f", "2");
  const BuildStatus second = run(what);
  EXPECT_NE(first.id, second.id);
  EXPECT_EQ(result(second.id.str() + "/f"), "2");
}

TEST_F(BuildsTest, NoPathLeadsUpFromADirectoryOfAResult) {
  run("a", "mkdir -p other/sub; ln -s other/sub link; touch f other/f");
  const Sources sources(*store_, "/mnt");
  Account account;
  account.uid = ::geteuid();
  account.gid = ::getegid();
  for (const char* path : {"/mnt/results/a/link/../f", "/mnt/results/a/link/..",
                           "/mnt/results/./a/link/sub/../../../a/f"}) {
    const auto there = sources.isDirectory(path, account);
    ASSERT_FALSE(there) << path;
    EXPECT_EQ(there.error().code, EINVAL) << path;
  }
  for (const char* path : {"/mnt/results/b/../a/f", "/mnt/logs/../results/a/./f"}) {
    EXPECT_TRUE(sources.isDirectory(path, account)) << path;
  }
}

class OneJobDataTest : public BuildsTest {
 protected:
  OneJobDataTest() : BuildsTest(1) {}
};

TEST_F(OneJobDataTest, AnAutomaticIdIsOfWhatWasCopied) {
  std::filesystem::create_directory(dir_ / "src");
  writeFile(dir_ / "src/f", "1");
  submit(request("slow", gate("slow")));
  awaitGate("slow");
  BuildRequest what = request("", "true");
  what.copies = {{"src", ""}};
  const Id asked = submit(what).id;
  BuildRequest named = what;
  named.id = id("named");
  submit(named);
  writeFile(dir_ / "src/f", "2");
  openGate("slow");
  const BuildStatus ended = wait(asked.str());
  EXPECT_EQ(ended.state, BuildState::failed);
  EXPECT_NE(ended.message.find("has changed"), std::string::npos) << ended.message;
  EXPECT_NE(log(asked.str()).find("has changed"), std::string::npos);
  EXPECT_FALSE(store_->hasResult(asked));
  EXPECT_EQ(wait("named").state, BuildState::saved) << "it says nothing of its content";
  writeFile(dir_ / "src/f", "1");
  const BuildStatus again = run(what);
  EXPECT_EQ(again.id, asked);
  EXPECT_FALSE(again.cached);
  EXPECT_EQ(result(asked.str() + "/f"), "1");
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

// That something is in the way of a cache is not that the result is there.
TEST_F(BuildsTest, ACacheWithoutAPlaceFailsTheBuild) {
  run("base", "mkdir cc; touch cc/keep");
  BuildRequest what = request("a", "true", "base");
  what.caches = {{id("ca"), "cc"}};
  const BuildStatus status = run(what);
  EXPECT_EQ(status.state, BuildState::failed);
  EXPECT_FALSE(status.exit);
  EXPECT_NE(status.message.find("cc: File exists"), std::string::npos) << status.message;
  EXPECT_NE(log("a").find("cc: File exists"), std::string::npos) << log("a");
  EXPECT_FALSE(store_->hasResult(id("a")));
}

TEST_F(BuildsTest, WhatSomebodyElseStoredMeanwhileIsTheResult) {
  const BuildStatus status = run("a", "mkdir " + (dir_ / "store/result/a"));
  EXPECT_EQ(status.state, BuildState::saved);
  EXPECT_EQ(status.exit, 0);
  EXPECT_EQ(log("a"), "");
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

TEST_F(BuildsTest, AnImportLeavesNoLogOfAnEarlierBuild) {
  std::filesystem::create_directory(dir_ / "tree");
  run("a", "false");
  EXPECT_FALSE(builds_->importTree(id("a"), "absent", me_, interrupt_));
  EXPECT_TRUE(store_->logFile(id("a"))) << "it is what there is to say of it";
  ASSERT_TRUE(builds_->importTree(id("a"), "tree", me_, interrupt_));
  EXPECT_FALSE(store_->logFile(id("a")));
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
