// Files that are copied before they are changed: nothing is lost if that fails, and nobody waits.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <string>

#include "tests/support/few_descriptors.h"
#include "tests/support/meanwhile.h"
#include "tests/support/tree_cow_fixture.h"
#include "tests/support/unprivileged.h"

namespace kilnfs {
namespace {

using testing::Meanwhile;
using testing::TreeCowTest;
using testing::Unprivileged;
using testing::withFewDescriptors;

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
                     [&](int room, int) { EXPECT_EQ(read("a/file"), "one") << room; });
  EXPECT_EQ(read("a/file"), "");
  withFewDescriptors([&] { return cutTo(linked, 2); },
                     [&](int room, int) { EXPECT_EQ(read("a/linked"), "linked") << room; });
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

/// What happens while a file is being copied, before it is written to.
class DuringACopy : public TreeCopyUp {
 protected:
  /// Writes to a/file, and does `what` on another thread meanwhile.
  void during(const std::function<void()>& what, int flags = O_WRONLY) {
    const InodePtr inode = node("a/file");
    std::future<void> other;
    bool done = false;
    {
      const Meanwhile copying("tree.copy", [&] {
        other = std::async(std::launch::async, what);
        // For ever, if that waits for the copy.
        done = other.wait_for(std::chrono::seconds(20)) == std::future_status::ready;
      });
      const auto file = tree_->open(*inode, flags, true);
      ASSERT_TRUE(file) << file.error().code;
      EXPECT_EQ(::pwrite((*file)->fd(), "W", 1, 0), 1);
    }
    other.wait();
    EXPECT_TRUE(done) << "it had to wait";
  }
};

TEST_F(DuringACopy, NobodyWaits) {
  during([&] {
    EXPECT_EQ(read("a/b/deep"), "deep");
    write("top", "changed");
    EXPECT_TRUE(tree_->mkdir(*node("a"), "new", 0755, me_));
    EXPECT_TRUE(tree_->rename(*node("a"), "soft", *node("a/b"), "soft", 0));
    EXPECT_EQ(read("a/file"), "one");
  });
  EXPECT_EQ(read("a/file"), "Wne");
}

TEST_F(DuringACopy, SomebodyElseMayBeFaster) {
  std::unique_ptr<File> reader = std::move(*tree_->open(*node("a/file"), O_RDONLY, true));
  during([&] { write("a/file", "two"); });
  EXPECT_EQ(read("a/file"), "Wwo");
  EXPECT_EQ(readAll(*reader), "Wwo");
}

TEST_F(DuringACopy, OfNothingAsWell) {
  during([&] { write("a/file", "two"); }, O_WRONLY | O_TRUNC);
  EXPECT_EQ(read("a/file"), "W");
}

TEST_F(DuringACopy, ItMayMove) {
  during([&] { EXPECT_TRUE(tree_->rename(*node("a"), "file", *node("a/b/c"), "moved", 0)); });
  EXPECT_EQ(read("a/b/c/moved"), "Wne");
  EXPECT_EQ(list("a"), (std::set<std::string>{"b", "linked", "soft"}));
}

TEST_F(DuringACopy, ItMayGetAnotherName) {
  kept_ = true;
  during([&] { EXPECT_TRUE(tree_->link(*node("a/file"), *node("a/b"), "again")); });
  EXPECT_EQ(read("a/file"), "Wne");
  EXPECT_EQ(read("a/b/again"), "Wne");
  EXPECT_EQ(at("a/file").attributes.st_nlink, 2U);
}

TEST_F(DuringACopy, ItMayLoseItsName) {
  const InodePtr inode = node("a/file");
  during([&] { EXPECT_TRUE(tree_->unlink(*node("a"), "file")); });
  EXPECT_EQ(tree_->getattr(*inode)->st_nlink, 0U);
  EXPECT_EQ(tree_->getattr(*inode)->st_size, 3);
}

}  // namespace
}  // namespace kilnfs
