// The store's own directories.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

#include <cstring>
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

// Neither results nor leases have an access list that nobody gave them.
TEST(Layout, TreesInheritNoAccessList) {
  // Version 2; owner, user 1234, group, mask and others may do all.
  const uint32_t list[] = {2,   0x70001, ~0U, 0x70002, 1234, 0x70004,
                           ~0U, 0x70010, ~0U, 0x70020, ~0U};
  TempDir dir;
  std::filesystem::create_directory(dir / "store");
  const char* const name = "system.posix_acl_default";
  const int set = ::setxattr((dir / "store").c_str(), name, list, sizeof list, 0);
  ASSERT_TRUE(set == 0 || errno == EOPNOTSUPP) << std::strerror(errno);
  const auto layout = Layout::open(dir / "store", false);
  ASSERT_TRUE(layout) << layout.error().message;
  for (const int area : {layout->resultTmp().fd.get(), layout->cacheTmp().fd.get()}) {
    EXPECT_EQ(::fgetxattr(area, name, nullptr, 0), -1);
  }
  EXPECT_EQ(::fgetxattr(layout->log().fd.get(), name, nullptr, 0) > 0, set == 0);
}

}  // namespace
}  // namespace kilnfs
