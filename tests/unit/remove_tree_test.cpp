#include "store/base/remove_tree.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/fd.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using testing::exists;
using testing::TempDir;
using testing::writeFile;

TEST(RemoveTreeTest, DeletesWhatIsDeeperThanAnyPath) {
  const TempDir dir;
  UniqueFd at(::open(dir.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::string name(100, 'd');
  for (int depth = 0; depth < 2000; ++depth) {
    ASSERT_EQ(::mkdirat(at.get(), name.c_str(), 0700), 0);
    at.reset(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  const UniqueFd top(::open(dir.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_TRUE(removeTree(top.get(), name));
  EXPECT_EQ(testing::entries(dir.path()), 0U);
}

TEST(RemoveTreeTest, FollowsNoLink) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "keep");
  writeFile(dir / "keep/f", "x");
  std::filesystem::create_directory(dir / "tree");
  std::filesystem::create_symlink(dir / "keep", dir / "tree/link");
  ASSERT_TRUE(removeTree(AT_FDCWD, dir / "tree/link"));
  ASSERT_TRUE(removeTree(AT_FDCWD, dir / "tree"));
  EXPECT_TRUE(exists(dir / "keep/f"));
}

TEST(RemoveTreeTest, OpensUpDirectoriesWithoutPermission) {
  const TempDir dir;
  std::filesystem::create_directories(dir / "tree/closed");
  writeFile(dir / "tree/closed/f", "x");
  ASSERT_EQ(::chmod((dir / "tree/closed").c_str(), 0), 0);
  ASSERT_TRUE(removeTree(AT_FDCWD, dir / "tree"));
  EXPECT_FALSE(exists(dir / "tree"));
}

TEST(RemoveTreeTest, AMissingNameIsNoError) {
  const TempDir dir;
  EXPECT_TRUE(removeTree(AT_FDCWD, dir / "nothing"));
}

}  // namespace
}  // namespace kilnfs
