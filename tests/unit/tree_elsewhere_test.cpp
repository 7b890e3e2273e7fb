// A tree that others change as well: the command of a build that runs past the mount.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "store/tree/tree.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using testing::readFile;
using testing::TempDir;
using testing::writeFile;

class ElsewhereTest : public ::testing::Test {
 protected:
  ElsewhereTest() {
    std::filesystem::create_directory(dir_ / "w");
    areaFd_.reset(::open(dir_.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    auto workspace = std::make_shared<Workspace>(areaFd_.get(), dir_.path(), "w", "builds/w");
    workspace->setNative({dir_ / "w", nullptr});
    tree_ = Tree::create(workspace, 7);
    writeFile(file_, "f");
    inode_ = tree_->lookup(*tree_->root()->inode, "f")->inode;
  }
  int open(int flags) const {
    const auto opened = tree_->open(*inode_, flags, true);
    return opened ? 0 : opened.error().code;
  }

  TempDir dir_;
  UniqueFd areaFd_;
  std::shared_ptr<Tree> tree_;
  const std::string file_ = dir_ / "w/f";
  InodePtr inode_;
};

TEST_F(ElsewhereTest, AFileIsOpenedAndCut) {
  ASSERT_EQ(open(O_WRONLY | O_TRUNC), 0);
  EXPECT_EQ(readFile(file_), "");
  const auto opened = tree_->open(*inode_, O_RDWR | O_TRUNC, true);
  ASSERT_TRUE(opened);
  EXPECT_EQ(::pwrite((*opened)->fd(), "g", 1, 0), 1);
  EXPECT_EQ(readFile(file_), "g");
}

TEST_F(ElsewhereTest, AnotherFileOfThatNameIsNotCut) {
  writeFile(dir_ / "w/g", "g");
  std::filesystem::rename(dir_ / "w/g", file_);
  EXPECT_EQ(open(O_WRONLY | O_TRUNC), ESTALE);
  EXPECT_EQ(readFile(file_), "g");
}

// On ext4 it has the number of the file that was removed.
TEST_F(ElsewhereTest, APipeOfThatNameIsNotWaitedFor) {
  std::filesystem::remove(file_);
  ASSERT_EQ(::mkfifo(file_.c_str(), 0644), 0);
  const UniqueFd reader(::open(file_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  ASSERT_TRUE(reader.valid());  // so that whoever opens the other end need not wait, and is seen
  EXPECT_EQ(open(O_WRONLY), ESTALE);
  pollfd heard = {reader.get(), POLLIN, 0};
  ASSERT_GE(::poll(&heard, 1, 0), 0);
  EXPECT_EQ(heard.revents & POLLHUP, 0) << "it was opened";
}

}  // namespace
}  // namespace kilnfs
