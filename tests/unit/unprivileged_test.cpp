// A daemon without privilege has directories that it may list but not search, or not even list.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store.h"
#include "tests/support/full_links.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tree_editor.h"
#include "tests/support/unprivileged.h"

namespace kilnfs {
namespace {

using testing::exists;
using testing::splitIn;
using testing::TempDir;
using testing::Unprivileged;
using testing::writeFile;

class UnprivilegedTest : public ::testing::Test {
 protected:
  explicit UnprivilegedTest(Mode mode = Mode::copy) {
    auto made = Store::create(dir_ / "store", {mode, "", false});
    EXPECT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
  }
  Status build(const std::string& name, const std::optional<std::string>& base,
               const Store::BuildFn& fn) {
    const auto on = base ? std::optional(*Id::parse(*base)) : std::nullopt;
    return store_->build(*Id::parse(name), on, User{::geteuid(), ::getegid()}, interrupt_, fn);
  }
  /// A base with a directory of that mode, which holds nothing, or a file.
  void makeBase(mode_t mode, bool full) {
    ASSERT_TRUE(build("base", {}, [&](const auto& tmp) -> Status {
      const std::string d = tmp->path() + "/d";
      EXPECT_EQ(::mkdir(d.c_str(), 0755), 0);
      writeFile(tmp->path() + "/other", "other");
      if (full) writeFile(d + "/f", "full");
      EXPECT_EQ(::chmod(d.c_str(), mode), 0);
      return {};
    }));
  }
  static int code(const Status& status) { return status ? 0 : status.error().code; }
  std::string result(const std::string& path) const { return dir_ / ("store/result/" + path); }

  TempDir dir_;
  Unprivileged user_{dir_.path()};
  std::unique_ptr<Store> store_;
  Interrupt interrupt_;
};

class DirectoryMode : public UnprivilegedTest, public ::testing::WithParamInterface<mode_t> {};
INSTANTIATE_TEST_SUITE_P(Modes, DirectoryMode, ::testing::Values(0755, 0444, 0400, 0600),
                         [](const auto& mode) { return fmt::format("m{:o}", mode.param); });

TEST_P(DirectoryMode, AnEmptyOneOfTheBaseIsRemoved) {
  makeBase(GetParam(), false);
  ASSERT_TRUE(build("x", "base", [&](const auto& tmp) -> Status {
    const auto tree = Tree::create(tmp, 0);
    EXPECT_EQ(code(tree->rmdir(*tree->root()->inode, "d")), 0);
    return {};
  }));
  ASSERT_TRUE(store_->completeDeletes());
  EXPECT_TRUE(exists(result("x/other")));
  EXPECT_FALSE(exists(result("x/d")));
  EXPECT_TRUE(exists(result("base/d")));
}

TEST_P(DirectoryMode, AnEmptyOneOfTheBaseIsReplaced) {
  makeBase(GetParam(), false);
  ASSERT_TRUE(build("x", "base", [&](const auto& tmp) -> Status {
    const auto tree = Tree::create(tmp, 0);
    const InodePtr root = tree->root()->inode;
    EXPECT_TRUE(tree->mkdir(*root, "e", 0755, {::geteuid(), ::getegid(), 0}));
    testing::Editor(tmp).write("e/g", "moved");
    EXPECT_EQ(code(tree->rename(*root, "e", *root, "d", 0)), 0);
    return {};
  }));
  ASSERT_TRUE(store_->completeDeletes());
  EXPECT_EQ(testing::readFile(result("x/d/g")), "moved");
}

TEST_P(DirectoryMode, AFullOneOfTheBaseIsNot) {
  makeBase(GetParam(), true);
  const Status done = build("x", "base", [&](const auto& tmp) -> Status {
    const auto tree = Tree::create(tmp, 0);
    const InodePtr root = tree->root()->inode;
    EXPECT_EQ(code(tree->rmdir(*root, "d")), ENOTEMPTY);
    EXPECT_TRUE(tree->mkdir(*root, "e", 0755, {::geteuid(), ::getegid(), 0}));
    EXPECT_EQ(code(tree->rename(*root, "e", *root, "d", 0)), ENOTEMPTY);
    EXPECT_TRUE(tree->lookup(*root, "d"));
    return fail(ECANCELED);
  });
  EXPECT_EQ(code(done), ECANCELED);
}

TEST_P(DirectoryMode, AnEmptyNewOneIsSaved) {
  makeBase(0755, true);
  const Status done = build("x", "base", [&](const auto& tmp) -> Status {
    const auto tree = Tree::create(tmp, 0);
    EXPECT_TRUE(tree->mkdir(*tree->root()->inode, "n", GetParam(), {::geteuid(), ::getegid(), 0}));
    return {};
  });
  ASSERT_TRUE(done) << done.error().message;
  ASSERT_TRUE(store_->completeDeletes());
  struct stat st = {};
  ASSERT_EQ(::stat(result("x/n").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, GetParam());
}

// Whether it is empty can't be told then, and what it holds must not be lost.
TEST_F(UnprivilegedTest, OneThatCantBeListedStays) {
  makeBase(0, false);
  const Status done = build("x", "base", [&](const auto& tmp) -> Status {
    const auto tree = Tree::create(tmp, 0);
    EXPECT_EQ(code(tree->rmdir(*tree->root()->inode, "d")), EACCES);
    EXPECT_TRUE(tree->lookup(*tree->root()->inode, "d"));
    return fail(ECANCELED);
  });
  EXPECT_EQ(code(done), ECANCELED);
}

// -- to move a directory elsewhere takes the right to write in it

class RootMode : public UnprivilegedTest {
 protected:
  static void makeUnwritable(const Workspace& workspace) {
    EXPECT_EQ(::chmod(workspace.path().c_str(), 0555), 0);
  }
  static void makeWritable(const Workspace& workspace) {
    EXPECT_EQ(::chmod(workspace.path().c_str(), 0755), 0);
  }
  static mode_t modeOf(const std::string& path) {
    struct stat st = {};
    EXPECT_EQ(::stat(path.c_str(), &st), 0) << path;
    return st.st_mode & 07777;
  }
  void reopen() {
    store_.reset();
    auto made = Store::create(dir_ / "store", {Mode::copy, "", false});
    ASSERT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
  }
  bool leftovers() const {
    return testing::entries(dir_ / "store/result-tmp") != 0 ||
           testing::entries(dir_ / "store/cache-tmp") != 0;
  }
};

TEST_F(RootMode, OfAResultIsKept) {
  const auto done = build("base", {}, [&](const auto& tmp) -> Status {
    writeFile(tmp->path() + "/f", "base");
    makeUnwritable(*tmp);
    return {};
  });
  ASSERT_TRUE(done) << done.error().message;
  const auto over = build("x", "base", [&](const auto& tmp) -> Status {
    const auto tree = Tree::create(tmp, 0);
    makeWritable(*tmp);
    EXPECT_TRUE(tree->mkdir(*tree->root()->inode, "n", 0755, {::geteuid(), ::getegid(), 0}));
    makeUnwritable(*tmp);
    return {};
  });
  ASSERT_TRUE(over) << over.error().message;
  const auto plain = store_->completeDeletes();
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_EQ(modeOf(result("base")), 0555U);
  EXPECT_EQ(modeOf(result("x")), 0555U);
  EXPECT_EQ(testing::readFile(result("x/f")), "base");
  const auto failed = build("y", {}, [&](const auto& tmp) -> Status {
    makeUnwritable(*tmp);
    return fail(ECANCELED);
  });
  EXPECT_EQ(code(failed), ECANCELED);
  EXPECT_TRUE(store_->completeDeletes());
  EXPECT_FALSE(leftovers());
  ASSERT_NO_FATAL_FAILURE(reopen());
  EXPECT_TRUE(store_->remove(*Id::parse("base"), true));
  EXPECT_TRUE(store_->completeDeletes());
  EXPECT_FALSE(leftovers());
}

TEST_F(RootMode, OfACacheIsKept) {
  const CacheName name = *Id::parse("c");
  for (uint64_t n = 1; n <= 3; ++n) {
    auto lease = store_->cache(User{::geteuid(), ::getegid()}, name);
    ASSERT_TRUE(lease) << lease.error().message;
    const auto tree = Tree::create(lease->workspace, 0);
    const InodePtr root = tree->root()->inode;
    makeWritable(*lease->workspace);
    EXPECT_TRUE(tree->mkdir(*root, fmt::format("d{}", n), 0755, {::geteuid(), ::getegid(), 0}));
    if (n == 1) {
      const std::string kept = lease->workspace->path() + "/kept";
      EXPECT_EQ(::mkdir(kept.c_str(), 0755), 0);
      writeFile(kept + "/f", "kept");
      EXPECT_EQ(::chmod(kept.c_str(), 0555), 0);
    }
    makeUnwritable(*lease->workspace);
    const auto released = store_->release(*lease, false, "test");
    ASSERT_TRUE(released) << released.error().message;
    EXPECT_EQ(released->generation, n);
    EXPECT_EQ(modeOf(dir_ / "store/cache/c"), 0555U);
    EXPECT_EQ(modeOf(dir_ / "store/cache/c/kept"), 0555U);
    EXPECT_EQ(testing::readFile(dir_ / "store/cache/c/kept/f"), "kept");
    EXPECT_TRUE(exists(dir_ / fmt::format("store/cache/c/d{}", n)));
  }
  ASSERT_TRUE(store_->completeDeletes());
  EXPECT_FALSE(leftovers());
}

TEST_F(RootMode, OfALeftoverKeepsNoStoreFromOpening) {
  store_.reset();
  for (const char* name : {"store/cache-tmp/1.c", "store/result-tmp/build.1.x"}) {
    ASSERT_EQ(::mkdir((dir_ / name).c_str(), 0755), 0);
    writeFile(dir_ / name + "/f", "f");
    ASSERT_EQ(::chmod((dir_ / name).c_str(), 0555), 0);
  }
  ASSERT_NO_FATAL_FAILURE(reopen());
  EXPECT_TRUE(store_->completeDeletes());
  EXPECT_FALSE(leftovers());
}

// Such as root's, or one that is immutable.
TEST_F(RootMode, OfALeftoverThatCantBeMovedIsNoObstacle) {
  if (::getuid() != 0) GTEST_SKIP() << "declared: needs root";
  store_.reset();
  const std::string lease = dir_ / "store/cache-tmp/1.c";
  const std::string made = dir_ / "store/result-tmp/build.1.x";
  ASSERT_EQ(::seteuid(0), 0);
  for (const std::string& name : {lease, made}) EXPECT_EQ(::mkdir(name.c_str(), 0755), 0);
  ASSERT_EQ(::seteuid(65534), 0);
  ASSERT_NO_FATAL_FAILURE(reopen());
  EXPECT_TRUE(exists(lease));
  auto taken = store_->cache(User{::geteuid(), ::getegid()}, *Id::parse("c"));
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_TRUE(store_->release(*taken, false, "test"));
  EXPECT_TRUE(build("x", {}, [](const auto&) -> Status { return {}; }));
}

class UnprivilegedLinks : public UnprivilegedTest {
 protected:
  UnprivilegedLinks() : UnprivilegedTest(Mode::hardlink) {}
};

// Saving a result, directories that can't be changed become own for a file that was, and then turn
// out to have a file with too many links, whichever comes first.
TEST_F(UnprivilegedLinks, OfDirectoriesThatCantBeChanged) {
  const struct timespec times[2] = {{1000, 1}, {2000, 2}};
  ASSERT_TRUE(build("base", {}, [&](const auto& tmp) -> Status {
    const std::string root = tmp->path();
    writeFile(root + "/changed", "base");
    for (const char* d : {"/p", "/q"}) {
      EXPECT_EQ(::mkdir((root + d).c_str(), 0755), 0);
      EXPECT_EQ(::link((root + "/changed").c_str(), (root + d + "/changed").c_str()), 0);
    }
    writeFile(root + "/p/full", "full");
    EXPECT_EQ(::link((root + "/p/full").c_str(), (root + "/q/full").c_str()), 0);
    for (const char* d : {"/p", "/q"}) {
      EXPECT_EQ(::chmod((root + d).c_str(), 0555), 0);
      EXPECT_EQ(::utimensat(AT_FDCWD, (root + d).c_str(), times, 0), 0);
    }
    return {};
  }));
  testing::leaveLinks(result("base/p/full"), 1, dir_.path());
  const Status done = build("x", "base", [&](const auto& tmp) -> Status {
    testing::Editor(tmp).write("changed", "changed");
    return {};
  });
  ASSERT_TRUE(done) << done.error().message;
  ASSERT_TRUE(store_->completeDeletes());
  struct stat files[2] = {};
  for (int i = 0; i < 2; ++i) {
    const std::string directory = result(i == 0 ? "x/p" : "x/q");
    struct stat st = {};
    ASSERT_EQ(::stat(directory.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 07777, 0555U);
    EXPECT_EQ(st.st_mtim.tv_sec, 2000);
    EXPECT_EQ(testing::readFile(directory + "/changed"), "changed");
    ASSERT_EQ(::stat((directory + "/full").c_str(), &files[i]), 0);
  }
  EXPECT_EQ(files[0].st_ino, files[1].st_ino) << "the names were parted";
}

}  // namespace
}  // namespace kilnfs
