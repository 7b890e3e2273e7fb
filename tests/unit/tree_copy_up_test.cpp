// Files that are copied before they are changed: nothing is lost if that fails, and nobody waits.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <string>

#include "tests/support/tree_cow_fixture.h"
#include "tests/support/unprivileged.h"

namespace kilnfs {
namespace {

using testing::TreeCowTest;
using testing::Unprivileged;

class TreeCopyUp : public TreeCowTest {
 protected:
  void TearDown() override {
    tree_.reset();
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      const std::string name = entry.path().filename();
      EXPECT_FALSE(name.starts_with(workspace_->beside().second) && !kept_) << name;
    }
    TreeCowTest::TearDown();
  }
  int cut(const InodePtr& inode, int flags) {
    const auto file = tree_->open(*inode, flags | O_TRUNC, true);
    return file ? 0 : file.error().code;
  }
  int cutTo(const InodePtr& inode, off_t size) {
    SetAttributes wanted;
    wanted.size = size;
    return code(tree_->setattr(*inode, wanted));
  }
  /// Does it with more and more descriptors, until it succeeds: `check` after each failure.
  template <class Do, class Check>
  void withFewDescriptors(Do what, Check check) {
    struct rlimit most = {};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &most), 0);
    const UniqueFd next(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    int failed = EMFILE;
    for (int room = 0; room < 64 && failed != 0; ++room) {
      struct rlimit few = most;
      few.rlim_cur = static_cast<rlim_t>(next.get() + room);
      ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
      failed = what();
      ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &most), 0);
      if (failed != 0) check(room);
    }
    EXPECT_EQ(failed, 0);
  }

  bool kept_ = false;  // a copy stays beside the tree: that of a file with several names
};

// As a daemon without privilege, whose user's root, in a namespace, the kernel lets through.
TEST_F(TreeCopyUp, AFileThatCantBeWrittenToIsNotCut) {
  for (const auto& each : std::filesystem::recursive_directory_iterator(dir_.path())) {
    ASSERT_EQ(::lchown(each.path().c_str(), 65534, 65534), 0);
  }
  for (const char* path : {"s/a/file", "s/a/linked", "s/top"}) {
    ASSERT_EQ(::chmod((dir_ / path).c_str(), 0444), 0);
  }
  before_ = digest(dir_ / "s");
  const Unprivileged user(dir_.path());
  const InodePtr gone = node("top");
  const auto reader = tree_->open(*gone, O_RDONLY, true);
  ASSERT_TRUE(reader);
  ASSERT_TRUE(tree_->unlink(*node(""), "top"));
  for (const InodePtr& inode : {node("a/file"), node("a/linked"), gone}) {
    EXPECT_EQ(cut(inode, O_WRONLY), EACCES);
    EXPECT_EQ(cut(inode, O_RDONLY), EACCES);
    EXPECT_EQ(cutTo(inode, 1), EACCES);
  }
  EXPECT_EQ(read("a/file"), "one");
  EXPECT_EQ(read("a/linked"), "linked");
  EXPECT_EQ(readAll(**reader), "top");
}

TEST_F(TreeCopyUp, AFileThatCantBeOpenedIsNotCut) {
  ASSERT_TRUE(tree_->mkdir(*node("a"), "own", 0755, me_));
  const InodePtr file = node("a/file");
  const InodePtr linked = node("a/linked");
  kept_ = true;
  withFewDescriptors([&] { return cut(file, O_RDWR); },
                     [&](int room) { EXPECT_EQ(read("a/file"), "one") << room; });
  EXPECT_EQ(read("a/file"), "");
  withFewDescriptors([&] { return cutTo(linked, 2); },
                     [&](int room) { EXPECT_EQ(read("a/linked"), "linked") << room; });
  EXPECT_EQ(read("a/b/also"), "li");
}

TEST_F(TreeCopyUp, CuttingMovesTheTimes) {
  kept_ = true;
  for (const char* path : {"a/file", "a/linked"}) {
    const struct timespec before = at(path).attributes.st_ctim;
    struct timespec now = before;
    while (now.tv_sec == before.tv_sec && now.tv_nsec <= before.tv_nsec) {
      ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
    }
    ASSERT_EQ(cut(node(path), O_WRONLY), 0);
    const struct stat st = at(path).attributes;
    EXPECT_EQ(st.st_size, 0);
    EXPECT_TRUE(st.st_ctim.tv_sec != before.tv_sec || st.st_ctim.tv_nsec > before.tv_nsec) << path;
    EXPECT_GE(st.st_mtim.tv_sec, before.tv_sec) << path;
  }
}

}  // namespace
}  // namespace kilnfs
