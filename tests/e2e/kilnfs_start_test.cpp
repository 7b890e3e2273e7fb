// Starting the daemon as people and programs do: in the background, by its command line.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

using ::testing::StartsWith;

class KilnfsStart : public MountedStore {
 protected:
  Ran sh(const std::string& line) const {
    return shell("PATH=" KILNFS_BIN ":$PATH; export PATH; " + line, dir_.path());
  }
  /// Unmounts, and waits for the daemon, which is our child once it is in the background.
  void unmount(const std::string& where) const {
    EXPECT_EQ(sh("umount '" + where + "'").status, 0);
    while (::waitpid(-1, nullptr, 0) > 0) {
    }
  }
};

TEST_F(KilnfsStart, WithoutStandardDescriptorsItServesAsWell) {
  for (int closed = 0; closed < 8; ++closed) {
    const std::string store = "store" + std::to_string(closed);
    std::string without;
    for (int fd = 0; fd < 3; ++fd) {
      if ((closed & 1 << fd) != 0) without += " " + std::to_string(fd) + ">&-";
    }
    ASSERT_EQ(sh("timeout 60 kilnfs " + store + " mnt" + without).status, 0) << without;
    EXPECT_EQ(sh("kiln --mount mnt build a -c 'echo kept >f'").status, 0) << without;
    EXPECT_EQ(readFile(mnt("results/a/f")), "kept\n") << without;
    unmount("mnt");
  }
}

TEST_F(KilnfsStart, TheUnitStartsAgainAfterACrash) {
  start();
  daemon_->end(SIGKILL);
  daemon_.reset();
  // As systemd would, but for what it does to the programs it has started.
  const Ran ran = sh("export STORE='" + store() + "' MNT='" + mnt() +
                     R"x(' OPTIONS=rw
sed -n -e 's|@CMAKE_INSTALL_FULL_BINDIR@/||' -e 's/^ExecStart\(Pre\)\{0,1\}=//p' ')x" KILNFS_SOURCE
                     R"x(/packaging/kilnfs@.service' >lines
test "$(wc -l <lines)" = 2 || exit
while read -r line; do
  case $line in -*) eval "${line#-}" ;; *) eval "$line" || exit ;; esac
done <lines)x");
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_EQ(sh("ls '" + mnt("results") + "'").status, 0);
  unmount(mnt());
}

TEST_F(KilnfsStart, WhatIsMountedAlreadyIsSaidToBe) {
  start();
  for (const char* store : {"store", "other"}) {
    const Ran ran = sh(std::string("kilnfs ") + store + " mnt");
    EXPECT_EQ(ran.status, 1) << store;
    EXPECT_EQ(ran.output, "kilnfs: mount point mnt: a kilnfs is mounted there already\n") << store;
  }
}

TEST_F(KilnfsStart, TheOptionsOfMountAreAccepted) {
  struct Case {
    const char* options;
    const char* shown;
  };
  for (const Case& c : {Case{"lazytime,iversion,mand,silent,loud,nostrictatime", "relatime"},
                        Case{"nolazytime,noiversion,nomand,norelatime", "relatime"},
                        Case{"noatime", "noatime"}, Case{"noatime,relatime", "relatime"},
                        Case{"noatime,atime,diratime,symfollow", "relatime"}}) {
    const Ran ran = sh(std::string("kilnfs store mnt -o ") + c.options +
                       " && findmnt -no OPTIONS mnt | tr , '\\n' | grep atime");
    EXPECT_EQ(ran.output, std::string(c.shown) + "\n") << c.options;
    unmount("mnt");
  }
  const Ran refused = sh("kilnfs store mnt -o strictatime");
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.output, StartsWith("kilnfs: option strictatime: libfuse"));
}

}  // namespace
}  // namespace kilnfs::testing
