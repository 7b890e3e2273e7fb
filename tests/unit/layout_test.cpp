// The store's own directories.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <filesystem>

#include "store/layout.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using testing::TempDir;

bool isSpread(int directory) {
  int flags = 0;
  return ::ioctl(directory, FS_IOC_GETFLAGS, &flags) == 0 && (flags & FS_TOPDIR_FL) != 0;
}

bool canSpread(const std::string& directory) {
  std::filesystem::create_directory(directory);
  const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int flags = 0;
  if (::ioctl(fd.get(), FS_IOC_GETFLAGS, &flags) != 0) return false;
  flags |= FS_TOPDIR_FL;
  return ::ioctl(fd.get(), FS_IOC_SETFLAGS, &flags) == 0 && isSpread(fd.get());
}

TEST(Layout, TreesAreSpreadWhereTheFileSystemCan) {
  TempDir dir;
  const bool can = canSpread(dir / "tried");
  const auto layout = Layout::open(dir / "store", false);
  ASSERT_TRUE(layout) << layout.error().message;
  EXPECT_EQ(isSpread(layout->resultTmp().fd.get()), can);
  EXPECT_EQ(isSpread(layout->cacheTmp().fd.get()), can);
  EXPECT_FALSE(isSpread(layout->log().fd.get()));
  EXPECT_FALSE(isSpread(layout->result().fd.get())) << "trees are not made there";
}

}  // namespace
}  // namespace kilnfs
