#include "tools/kiln/mount.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kilnfs {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kOther =
    "22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n"
    "30 22 0:5 / /dev rw,nosuid shared:2 master:1 - devtmpfs udev rw\n"
    "31 22 0:40 / /mnt/fuse.kilnfs rw - fuse.sshfs fuse.kilnfs rw\n";
constexpr const char* kOne =
    "40 22 0:50 / /mnt/a\\040b\\134c rw shared:7 - fuse.kilnfs /store rw\n";
constexpr const char* kTwo = "41 22 0:51 / /mnt/second rw - fuse.kilnfs /other rw\n";
constexpr const char* kPart = "42 22 0:51 /results /srv/part rw - fuse.kilnfs /other rw\n";

TEST(KilnMount, MountpointsAreFoundByTypeAndDecoded) {
  EXPECT_THAT(kilnfsMounts(kOther), IsEmpty());
  EXPECT_THAT(kilnfsMounts(std::string(kOther) + kOne), ElementsAre("/mnt/a b\\c"));
  EXPECT_THAT(kilnfsMounts("40 22 0:50 / /x\\011y\\012z rw - fuse.kilnfs s rw\n"),
              ElementsAre("/x\ty\nz"));
}

TEST(KilnMount, PartsAndMountsOnTopAreNotListedTwice) {
  EXPECT_THAT(kilnfsMounts(std::string(kTwo) + kTwo + kPart), ElementsAre("/mnt/second"));
}

TEST(KilnMount, NonsenseIsNoMount) {
  for (const char* text :
       {"", "\n\n", "40 22", "a b c d e f g", " - fuse.kilnfs", "1 2 3 / /x - "}) {
    EXPECT_THAT(kilnfsMounts(text), IsEmpty()) << text;
  }
}

TEST(KilnMount, TheOptionComesFirstThenTheVariableThenTheOnlyOne) {
  const std::string info = std::string(kOther) + kTwo;
  EXPECT_EQ(chooseMount("/option", "/variable", info).value(), "/option");
  EXPECT_EQ(chooseMount("", "/variable", info).value(), "/variable");
  EXPECT_EQ(chooseMount("", "", info).value(), "/mnt/second");
}

TEST(KilnMount, NoneSaysHowToMountAndSeveralAreListed) {
  const auto none = chooseMount("", "", kOther);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ENOENT);
  EXPECT_THAT(none.error().message, HasSubstr("kilnfs STORE MNT"));
  const auto several = chooseMount("", "", std::string(kOne) + kTwo);
  ASSERT_FALSE(several);
  EXPECT_THAT(several.error().message, HasSubstr("/mnt/second"));
  EXPECT_THAT(several.error().message, HasSubstr("--mount"));
}

TEST(KilnMount, ADirectoryWithoutControlIsNoMount) {
  const auto mount = findMount("/proc/self");
  ASSERT_FALSE(mount);
  EXPECT_THAT(mount.error().message, HasSubstr("not a kilnfs mount"));
}

TEST(KilnMount, ADeadDaemonIsSaidToBeGone) {
  EXPECT_THAT(mountError("/mnt", "/mnt/control", ENOTCONN).message, HasSubstr("daemon"));
  EXPECT_THAT(mountError("/mnt", "/mnt/control", EACCES).message, HasSubstr("/mnt/control"));
}

TEST(KilnMount, AControlThatIsRefusedSaysWhatDecides) {
  const std::string denied = controlError("/mnt", EACCES).message;
  EXPECT_THAT(denied, HasSubstr("'/mnt/control': Permission denied"));
  EXPECT_THAT(denied, HasSubstr("control_mode"));
  EXPECT_THAT(denied, HasSubstr("control_gid"));
  EXPECT_THAT(controlError("/mnt", EROFS).message, HasSubstr("the mount is read-only"));
  EXPECT_THAT(controlError("/mnt", ENOTCONN).message, HasSubstr("has gone"));
}

}  // namespace
}  // namespace kilnfs
