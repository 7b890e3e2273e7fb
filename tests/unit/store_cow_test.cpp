// The store with copy-on-write workspaces: what is sealed is what a plain copy would have been.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "store/base/fault.h"
#include "store/store.h"
#include "store/tree/tree.h"
#include "tests/support/meanwhile.h"
#include "tests/support/names.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tree_editor.h"

namespace kilnfs {
namespace {

using testing::Editor;
using testing::entries;
using testing::exists;
using testing::readFile;
using testing::readIn;
using testing::TempDir;
using testing::writeFile;

using testing::id;

std::set<ino_t> inodes(const std::string& root) {
  std::set<ino_t> all;
  for (const auto& e : std::filesystem::recursive_directory_iterator(root)) {
    struct stat st = {};
    ::lstat(e.path().c_str(), &st);
    all.insert(st.st_ino);
  }
  return all;
}

class StoreCowTest : public ::testing::TestWithParam<Mode> {
 protected:
  StoreCowTest() {
    open();
    Interrupt interrupt;
    EXPECT_TRUE(store_->build(id("base"), {}, User{}, interrupt, [&](const auto& tmp) -> Status {
      fill(tmp->path());
      return {};
    }));
  }
  ~StoreCowTest() override {
    EXPECT_TRUE(store_->completeDeletes());
    EXPECT_EQ(entries(dir_ / "store/result-tmp"), 0U) << "nothing is left behind";
    EXPECT_EQ(entries(dir_ / "store/cache-tmp"), 0U);
  }
  void open() {
    store_.reset();
    auto made = Store::create(dir_ / "store", {GetParam(), "", false});
    ASSERT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
  }
  static void fill(const std::string& root) {
    std::filesystem::create_directories(root + "/a/b/c");
    std::filesystem::create_directories(root + "/other/deep");
    writeFile(root + "/a/file", "one");
    writeFile(root + "/a/b/kept", "kept");
    writeFile(root + "/a/b/c/kept", "kept too");
    writeFile(root + "/other/deep/kept", "kept as well");
    writeFile(root + "/a/linked", "linked");
    std::filesystem::create_hard_link(root + "/a/linked", root + "/other/also");
  }
  std::string result(const std::string& path) const { return dir_ / ("store/result/" + path); }
  std::string cached(const std::string& path) const { return dir_ / ("store/cache/npm/" + path); }

  Status build(const std::string& name, const std::function<void(Editor&)>& edit) {
    Interrupt interrupt;
    auto done =
        store_->build(id(name), id("base"), User{}, interrupt, [&](const auto& tmp) -> Status {
          Editor editor(tmp);
          edit(editor);
          return {};
        });
    return done ? store_->completeDeletes() : done;
  }
  CacheLease lease() { return std::move(*store_->cache(User{}, npm_)); }
  void makeCache() {
    CacheLease first = lease();
    Editor(first.workspace).write("seed", "seed");
    fill(first.workspace->path());
    ASSERT_EQ(store_->release(first, false, "me")->outcome, Release::Outcome::published);
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
  const CacheName npm_ = *CacheName::parse("npm");
};

TEST_P(StoreCowTest, ABuildIsTheBaseWithItsChanges) {
  ASSERT_TRUE(build("b", [](Editor& e) {
    e.write("a/file", "two");
    e.write("a/b/c/new", "new");
    e.rename("other/deep", "moved");
    e.write("a/linked", "changed");
  }));
  EXPECT_EQ(readFile(result("b/a/file")), "two");
  EXPECT_EQ(readFile(result("b/a/b/c/new")), "new");
  EXPECT_EQ(readFile(result("b/a/b/kept")), "kept");
  EXPECT_EQ(readFile(result("b/moved/kept")), "kept as well");
  EXPECT_FALSE(exists(result("b/other/deep")));
  EXPECT_EQ(readFile(result("b/a/linked")), "changed");
  EXPECT_EQ(readFile(result("b/other/also")), "changed");
  struct stat one = {};
  struct stat two = {};
  ASSERT_EQ(::stat(result("b/a/linked").c_str(), &one), 0);
  ASSERT_EQ(::stat(result("b/other/also").c_str(), &two), 0);
  EXPECT_EQ(one.st_ino, two.st_ino);
  EXPECT_EQ(one.st_nlink, 2U);
  EXPECT_EQ(readFile(result("base/a/file")), "one");
  EXPECT_EQ(readFile(result("base/a/linked")), "linked");
}

TEST_P(StoreCowTest, AnUnchangedBuildIsTheBase) {
  ASSERT_TRUE(build("b", [](Editor& e) { EXPECT_EQ(e.read("a/file"), "one"); }));
  EXPECT_EQ(readFile(result("b/other/deep/kept")), "kept as well");
}

TEST_P(StoreCowTest, AnEmptyBaseGivesItsAttributes) {
  Interrupt interrupt;
  constexpr struct timespec kThen[2] = {{1000000000, 5}, {1000000001, 6}};
  ASSERT_TRUE(store_->build(id("bare"), {}, User{}, interrupt, [&](const auto& tmp) -> Status {
    EXPECT_EQ(::chmod(tmp->path().c_str(), 02750), 0);
    EXPECT_EQ(::setxattr(tmp->path().c_str(), "user.colour", "blue", 4, 0), 0);
    EXPECT_EQ(::utimensat(AT_FDCWD, tmp->path().c_str(), kThen, 0), 0);
    return {};
  }));
  ASSERT_TRUE(store_->build(id("same"), id("bare"), User{1, 1}, interrupt,
                            [&](const auto&) -> Status { return {}; }));
  ASSERT_TRUE(
      store_->build(id("more"), id("bare"), User{1, 1}, interrupt, [&](const auto& tmp) -> Status {
        Editor(tmp).write("file", "new");
        return {};
      }));
  ASSERT_TRUE(store_->completeDeletes());
  for (const char* name : {"same", "more"}) {
    struct stat st = {};
    ASSERT_EQ(::stat(result(name).c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 07777, 02750U) << name;
    EXPECT_EQ(st.st_uid, ::geteuid()) << name;
    EXPECT_EQ(st.st_mtim.tv_sec == kThen[1].tv_sec, std::string(name) == "same");
    char colour[8] = {};
    EXPECT_EQ(::getxattr(result(name).c_str(), "user.colour", colour, sizeof colour), 4) << name;
    EXPECT_EQ(store_->info(id(name))->parent, id("bare"));
  }
  EXPECT_EQ(entries(result("same")), 0U);
  EXPECT_EQ(readFile(result("more/file")), "new");
  EXPECT_EQ(entries(result("bare")), 0U);
}

TEST_P(StoreCowTest, InCopyModeNoInodeIsShared) {
  ASSERT_TRUE(build("b", [](Editor& e) { e.write("a/file", "two"); }));
  const auto base = inodes(result("base"));
  size_t shared = 0;
  for (const ino_t ino : inodes(result("b"))) shared += base.count(ino);
  EXPECT_EQ(shared, GetParam() == Mode::copy ? 0U : 4U);
  struct stat one = {};
  struct stat two = {};
  ASSERT_EQ(::stat(result("b/a/linked").c_str(), &one), 0);
  ASSERT_EQ(::stat(result("b/other/also").c_str(), &two), 0);
  EXPECT_EQ(one.st_ino, two.st_ino) << "but links inside the tree stay";
}

TEST_P(StoreCowTest, DirectoriesKeepTheirTimes) {
  const struct timespec times[2] = {{1, 1}, {1234567, 89}};
  for (const char* d : {"base/a", "base/a/b", "base/a/b/c", "base/other"}) {
    ASSERT_EQ(::utimensat(AT_FDCWD, result(d).c_str(), times, 0), 0);
  }
  ASSERT_TRUE(build("b", [](Editor& e) { e.write("a/b/kept", "two"); }));
  for (const char* d : {"b/a", "b/a/b", "b/a/b/c", "b/other"}) {
    struct stat st = {};
    ASSERT_EQ(::stat(result(d).c_str(), &st), 0);
    EXPECT_EQ(st.st_mtim.tv_sec, 1234567) << d;
    EXPECT_EQ(st.st_mtim.tv_nsec, 89) << d;
  }
}

TEST_P(StoreCowTest, PublishingMovesWhatWasKept) {
  makeCache();
  struct stat before = {};
  ASSERT_EQ(::stat(cached("other/deep").c_str(), &before), 0);
  CacheLease l = lease();
  Editor e(l.workspace);
  EXPECT_EQ(e.read("other/deep/kept"), "kept as well");
  e.write("a/file", "two");
  ASSERT_EQ(store_->release(l, false, "me")->outcome, Release::Outcome::published);
  EXPECT_EQ(readFile(cached("a/file")), "two");
  EXPECT_EQ(readFile(cached("a/b/c/kept")), "kept too");
  EXPECT_EQ(readFile(cached("seed")), "seed");
  struct stat after = {};
  ASSERT_EQ(::stat(cached("other/deep").c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino) << "moved, not copied";
}

TEST_P(StoreCowTest, LeasesOfAnOldGenerationReadOnWhileTheCacheMovesOn) {
  makeCache();
  CacheLease reader = lease();
  Editor old(reader.workspace);
  EXPECT_EQ(old.read("a/file"), "one");
  for (const std::string content : {"two", "three", "four"}) {
    CacheLease l = lease();
    Editor(l.workspace).write("a/file", content);
    Editor(l.workspace).write("a/b/c/kept", content);
    ASSERT_EQ(store_->release(l, false, "me")->outcome, Release::Outcome::published);
    ASSERT_TRUE(store_->completeDeletes());
    EXPECT_EQ(old.read("a/file"), "one");
    EXPECT_EQ(old.read("a/b/c/kept"), "kept too");
    EXPECT_EQ(old.read("other/deep/kept"), "kept as well");
  }
  // And can still be written to: its directories are made own from wherever they are now.
  old.write("other/deep/kept", "mine");
  EXPECT_EQ(old.read("other/deep/kept"), "mine");
  EXPECT_EQ(readFile(cached("other/deep/kept")), "kept as well");
  EXPECT_EQ(store_->release(reader, false, "me")->outcome, Release::Outcome::discarded);
}

TEST_P(StoreCowTest, LeasesOfAnOldGenerationSeeTheTimesThatItHad) {
  makeCache();
  const struct timespec times[2] = {{1, 1}, {1234567, 89}};
  for (const char* d : {"a", ""}) {
    ASSERT_EQ(::utimensat(AT_FDCWD, cached(d).c_str(), times, 0), 0);
  }
  CacheLease reader = lease();
  CacheLease l = lease();
  Editor(l.workspace).write("a/file", "two");  // a/b moves on, and so does other
  ASSERT_EQ(store_->release(l, false, "me")->outcome, Release::Outcome::published);
  const auto tree = Tree::create(reader.workspace, 0);
  const auto a = tree->lookup(*tree->root()->inode, "a");
  ASSERT_TRUE(a);
  EXPECT_EQ(a->attributes.st_mtim.tv_sec, 1234567);
  EXPECT_EQ(a->attributes.st_mtim.tv_nsec, 89);
  EXPECT_EQ(store_->release(reader, true, "me")->outcome, Release::Outcome::discarded);
}

TEST_P(StoreCowTest, APublishThatFailsLeavesTheCacheAsItWas) {
  makeCache();
  const struct timespec times[2] = {{1, 1}, {1234567, 89}};
  for (const char* d : {"a", "other"}) {
    ASSERT_EQ(::utimensat(AT_FDCWD, cached(d).c_str(), times, 0), 0);
  }
  CacheLease l = lease();
  Editor e(l.workspace);
  e.write("a/file", "two");
  e.write("other/file", "two");
  // One directory was moved; where the other is to go there is nothing.
  const auto spoil = [at = l.workspace->path()] {
    const int one = ::rmdir((at + "/a/b").c_str());
    EXPECT_NE(one, ::rmdir((at + "/other/deep").c_str()));
  };
  const testing::Meanwhile moving("cache.gift", spoil, 1);
  EXPECT_FALSE(store_->release(l, false, "me"));
  EXPECT_EQ(readFile(cached("a/b/c/kept")), "kept too");
  EXPECT_EQ(readFile(cached("other/deep/kept")), "kept as well");
  for (const char* d : {"a", "other"}) {
    struct stat st = {};
    ASSERT_EQ(::stat(cached(d).c_str(), &st), 0);
    EXPECT_EQ(st.st_mtim.tv_sec, 1234567) << d;
  }
}

// A directory that an old generation gave away has, by then, given away what is in it.
TEST_P(StoreCowTest, ALeaseOfAnOldGenerationMeetsPlaceholdersOfLaterOnes) {
  makeCache();
  CacheLease reader = lease();
  const auto tree = Tree::create(reader.workspace, 0);
  const InodePtr a = tree->lookup(*tree->root()->inode, "a")->inode;
  for (const std::string path : {"seed", "a/file", "a/b/kept"}) {
    CacheLease l = lease();
    Editor(l.workspace).write(path, "later");
    ASSERT_EQ(store_->release(l, false, "me")->outcome, Release::Outcome::published);
  }
  const auto b = tree->lookup(*a, "b");
  ASSERT_TRUE(b);
  EXPECT_EQ(b->attributes.st_mode & 0777, 0755U) << "not the placeholder's";
  EXPECT_EQ(readIn(*tree, "a/file"), "one");
  EXPECT_EQ(readIn(*tree, "a/b/kept"), "kept");
  EXPECT_EQ(readIn(*tree, "a/b/c/kept"), "kept too");
  EXPECT_EQ(store_->release(reader, true, "me")->outcome, Release::Outcome::discarded);
}

// The snapshot that a lease reads is renamed by whoever publishes the next one.
TEST_P(StoreCowTest, LeasesReadOnWhileTheirSnapshotIsMoved) {
  makeCache();
  std::atomic<bool> done{false};
  std::map<std::string, int> seen;
  std::thread reads([&] {
    while (!done) {
      CacheLease reader = lease();
      for (int i = 0; i < 20; ++i) {
        const auto tree = Tree::create(reader.workspace, 0);  // which knows no directory yet
        ++seen[readIn(*tree, "a/b/kept")];
      }
      EXPECT_TRUE(store_->release(reader, true, "reader"));
    }
  });
  for (int i = 0; i < 200; ++i) {
    CacheLease l = lease();
    Editor(l.workspace).write("a/file", std::to_string(i));
    EXPECT_EQ(store_->release(l, false, "me")->outcome, Release::Outcome::published);
  }
  done = true;
  reads.join();
  EXPECT_EQ(seen.size(), 1U) << ::testing::PrintToString(seen);
  EXPECT_GT(seen["kept"], 0);
}

TEST_P(StoreCowTest, OpeningWithoutChangingPublishesNothing) {
  makeCache();
  CacheLease l = lease();
  l.workspace->markChanged();
  EXPECT_EQ(store_->release(l, false, "me")->outcome, Release::Outcome::unchanged);
  EXPECT_EQ(readFile(cached("a/file")), "one");
}

TEST_P(StoreCowTest, LinkCountsAreCarriedOnWithoutAWalk) {
  makeCache();
  for (int i = 0; i < 3; ++i) {
    CacheLease l = lease();
    Editor e(l.workspace);
    e.write("a/linked", std::to_string(i));
    EXPECT_EQ(e.read("other/also"), std::to_string(i));
    ASSERT_EQ(store_->release(l, false, "me")->outcome, Release::Outcome::published);
    EXPECT_EQ(readFile(cached("other/also")), std::to_string(i));
  }
}

// What kill -9 leaves at each commit point is one of the versions, whole.
TEST_P(StoreCowTest, AKillAtAnyCommitPointLeavesOneVersionWhole) {
  makeCache();
  store_.reset();
  for (const char* point : {"cache.gift", "cache.exchange", "cache.commit"}) {
    for (int after = 0; after < 3; ++after) {
      const pid_t child = ::fork();
      if (child == 0) {
        auto store = Store::create(dir_ / "store", {});
        if (!store) ::_exit(1);
        auto l = (*store)->cache(User{}, npm_);
        Editor e(l->workspace);
        e.write("a/file", "killed");
        e.write("a/b/kept", "killed");
        armedAfter = after;
        armedFault = point;
        (void)(*store)->release(*l, false, "me");
        ::_exit(0);
      }
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFEXITED(status));
      ASSERT_TRUE(WEXITSTATUS(status) == 99 || after > 0) << point << " was not reached";
      open();
      const std::string version = readFile(cached("a/file"));
      EXPECT_TRUE(version == "one" || version == "killed") << version;
      EXPECT_EQ(readFile(cached("a/b/kept")), version == "one" ? "kept" : "killed");
      EXPECT_EQ(readFile(cached("a/b/c/kept")), "kept too") << point << " " << after;
      EXPECT_EQ(readFile(cached("other/deep/kept")), "kept as well") << point << " " << after;
      store_.reset();
    }
  }
  open();
}

TEST_P(StoreCowTest, AKilledBuildIsThereOrIsNot) {
  store_.reset();
  for (const std::string point : {"result.sealed", "result.row", "result.plain", "result.placed"}) {
    const pid_t child = ::fork();
    if (child == 0) {
      store_ = std::move(*Store::create(dir_ / "store", {}));
      armedFault = point.c_str();
      (void)build(point, [](Editor& e) { e.write("a/file", "x"); });
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(WEXITSTATUS(status), 99);
    open();
    const bool saved = point != "result.sealed";
    EXPECT_EQ(store_->hasResult(id(point)), saved);
    if (saved) {
      auto tree = Tree::create(*store_->result(id(point)), 0);
      EXPECT_EQ(readIn(*tree, "a/file"), "x") << "before it is plain, too";
      EXPECT_EQ(readIn(*tree, "other/deep/kept"), "kept as well");
    }
    ASSERT_TRUE(store_->completeDeletes());
    EXPECT_EQ(exists(result(point)), saved);
    if (saved) {
      EXPECT_EQ(readFile(result(point + "/a/file")), "x");
      EXPECT_EQ(readFile(result(point + "/a/b/c/kept")), "kept too");
      EXPECT_EQ(readFile(result(point + "/other/also")), "linked");
    }
    store_.reset();
  }
  open();
  EXPECT_EQ(store_->info(id("base"))->children, 3);
}

INSTANTIATE_TEST_SUITE_P(Modes, StoreCowTest, ::testing::Values(Mode::copy, Mode::hardlink),
                         [](const auto& test) { return modeName(test.param); });

}  // namespace
}  // namespace kilnfs
