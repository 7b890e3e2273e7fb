// What is left of making something a workspace's own when it fails half-way: nothing.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "tests/support/few_descriptors.h"
#include "tests/support/tree_cow_fixture.h"
#include "tests/support/unprivileged.h"

namespace kilnfs {
namespace {

using testing::entries;
using testing::TreeCowTest;
using testing::Unprivileged;
using testing::withFewDescriptors;
using testing::writeFile;

// A directory that can't be made own: what is in the way of its last name is.
class TreeCowUndo : public TreeCowTest {
 protected:
  void SetUp() override {
    TreeCowTest::SetUp();
    for (int i = 0; i < kMany; ++i) {
      std::filesystem::create_directory(dir_ / ("s/a/many" + std::to_string(i)));
      writeFile(dir_ / ("s/a/many" + std::to_string(i) + "/f"), "the snapshot's");
    }
    before_ = digest(dir_ / "s");
    ASSERT_TRUE(tree_->mkdir(*node(""), "own", 0755, me_));
    for (const auto& e : std::filesystem::directory_iterator(dir_ / "s/a")) {
      obstacle_ = dir_ / ("w/a/" + e.path().filename().string());
    }
    writeFile(obstacle_, "in the way");
  }
  /// On ext4 they get the numbers of directories that were removed just now.
  void newDirectoriesAreEmpty() {
    for (int i = 0; i < 2 * kMany; ++i) {
      const std::string name = "new" + std::to_string(i);
      ASSERT_TRUE(tree_->mkdir(*node("own"), name, 0755, me_));
      EXPECT_TRUE(list("own/" + name).empty()) << name;
      EXPECT_TRUE(numbers_.insert(at("own/" + name).attributes.st_ino).second) << name;
    }
  }
  static constexpr int kMany = 20;
  std::string obstacle_;
  std::set<uint64_t> numbers_;
};

TEST_F(TreeCowUndo, NothingIsRememberedOfItsDirectories) {
  const size_t stubs = workspace_->cow()->stubs().size();
  EXPECT_EQ(code(tree_->mkdir(*node("a"), "x", 0755, me_)), EEXIST);
  EXPECT_EQ(workspace_->cow()->stubs().size(), stubs);
  for (int i = 0; i < kMany; ++i)
    numbers_.insert(at("a/many" + std::to_string(i)).attributes.st_ino);
  newDirectoriesAreEmpty();
}

TEST_F(TreeCowUndo, ThoseThatAreInUseStayWhatTheyAre) {
  std::vector<Tree::Entry> used;
  for (int i = 0; i < kMany; ++i) {
    used.push_back(at("a/many" + std::to_string(i)));
    numbers_.insert(used.back().attributes.st_ino);
  }
  EXPECT_EQ(code(tree_->mkdir(*node("a"), "x", 0755, me_)), EEXIST);
  newDirectoriesAreEmpty();
  for (int i = 0; i < kMany; ++i) {
    const std::string path = "a/many" + std::to_string(i);
    EXPECT_EQ(at(path).inode, used[i].inode) << path;
    EXPECT_EQ(at(path).attributes.st_ino, used[i].attributes.st_ino) << path;
    EXPECT_EQ(list(path), std::set<std::string>{"f"}) << path;
  }
  std::filesystem::remove(obstacle_);
  ASSERT_TRUE(tree_->mkdir(*node("a"), "x", 0755, me_));
  for (int i = 0; i < kMany; ++i) {
    const std::string path = "a/many" + std::to_string(i);
    EXPECT_EQ(at(path).inode, used[i].inode) << path;
    write(path + "/f", "changed");
    EXPECT_EQ(read(path + "/f"), "changed");
  }
}

// As somebody to whom the snapshot's files do not belong: they can't be linked, and are copied.
TEST_F(TreeCowTest, NothingIsLeftOfFilesThatCantAllBeCopied) {
  std::filesystem::create_directory(dir_ / "s/d");
  writeFile(dir_ / "s/d/empty", "");  // to copy it takes less than to let readers follow
  before_ = digest(dir_ / "s");
  ASSERT_TRUE(tree_->mkdir(*node(""), "own", 0755, me_));
  ASSERT_EQ(::chown((dir_ / "w/d").c_str(), 65534, 65534), 0);
  const Unprivileged user(dir_.path());
  if (::link((dir_ / "s/d/empty").c_str(), (dir_ / "link").c_str()) == 0) {
    GTEST_SKIP() << "anybody may link to anything here";
  }
  const InodePtr d = node("d");
  const auto reader = tree_->open(*node("d/empty"), O_RDONLY, true);
  ASSERT_TRUE(reader);
  withFewDescriptors([&] { return code(tree_->mkdir(*d, "x", 0755, me_)); },
                     [&](int room, int failed) {
                       EXPECT_EQ(entries(dir_ / "w/d"), 0U) << room << ": " << failed;
                     });
}

TEST_F(TreeCowTest, NothingIsRememberedOfACopyThatCantBePutInPlace) {
  ASSERT_EQ(::chmod((dir_ / "s/a/file").c_str(), 0644), 0);
  before_ = digest(dir_ / "s");
  ASSERT_TRUE(tree_->mkdir(*node("a"), "own", 0755, me_));
  const Unprivileged user(dir_.path());  // to whom that directory does not belong
  EXPECT_EQ(code(tree_->open(*node("a/file"), O_WRONLY, true)), EACCES);
  EXPECT_EQ(read("a/file"), "one");
  // On ext4 one of them gets the number that the copy had.
  for (int i = 0; i < 20; ++i) {
    const std::string path = dir_ / ("new" + std::to_string(i));
    writeFile(path, "");
    struct stat st = {};
    ASSERT_EQ(::stat(path.c_str(), &st), 0);
    EXPECT_EQ(workspace_->cow()->origin(backingId(st)), backingId(st)) << i;
  }
}

}  // namespace
}  // namespace kilnfs
