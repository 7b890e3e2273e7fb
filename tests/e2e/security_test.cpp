// The lines of packaging/SECURITY.md that no other test shows.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

constexpr unsigned kUser = 65534;

class Security : public MountedStore {
 protected:
  void SetUp() override {
    MountedStore::SetUp();
    start({"control_mode=0666"});
  }
  /// What a build of that user's says.
  std::string built(const std::string& id, const std::string& script) {
    writeFile(scratch() + "/line", "build " + id + " --wait -c '" + script + "'\n");
    const Ran ran = shell("cat " + scratch() + "/line > control", mnt(), kUser);
    EXPECT_EQ(ran.status, 0) << ran.output << readFile(mnt("errors"));
    return readFile(store() + "/log/" + id);
  }
};

TEST_F(Security, ABuildHasNoCapability) {
  EXPECT_EQ(built("a", "grep -E \"^Cap(Inh|Prm|Eff|Amb)\" /proc/self/status | tr -s \"\\t\" \" \""),
            "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n"
            "CapAmb: 0000000000000000\n");
  EXPECT_EQ(built("b", "id -u; id -g; id -G"), "65534\n65534\n65534\n");
}

TEST_F(Security, ABuildInheritsNoDescriptorAndNoTerminal) {
  // 3 is the directory that ls itself reads.
  EXPECT_EQ(built("a", "ls /proc/self/fd; readlink /proc/self/fd/0"), "0\n1\n2\n3\n/dev/null\n");
  EXPECT_EQ(built("b", "if (: </dev/tty) 2>/dev/null; then echo a tty; else echo none; fi"),
            "none\n");
}

TEST_F(Security, NobodyReadsAnothersLease) {
  ASSERT_EQ(shell("exec 3<>control; echo lease secret --as kept >&3; cat <&3", mnt()).status, 0);
  const std::string lease = shell("ls leases", mnt()).output;
  ASSERT_NE(lease.find("secret."), std::string::npos);
  const std::string path = mnt("leases/" + lease.substr(0, lease.size() - 1));
  writeFile(path + "/f", "mine");
  EXPECT_NE(shell("cat " + path + "/f", "/", kUser).status, 0);
  EXPECT_NE(shell("ls " + path, "/", kUser).status, 0);
  EXPECT_NE(shell("echo x > " + path + "/g", "/", kUser).status, 0);
  EXPECT_NE(shell("rmdir " + path, "/", kUser).status, 0);
  EXPECT_EQ(readFile(path + "/f"), "mine");
}

TEST_F(Security, SetIdFilesAndDevicesOfATreeAreKeptButDoNothing) {
  // Made by root, in a result that all may read; seen through the mount by a user.
  writeFile(
      scratch() + "/line",
      "build a --wait -c 'cp /usr/bin/id id; chmod 4755 id; mknod null c 1 3; chmod 666 null'\n");
  ASSERT_EQ(shell("cat " + scratch() + "/line > control", mnt()).status, 0);
  EXPECT_EQ(shell("stat -c %a results/a/id", mnt()).output, "4755\n");
  EXPECT_EQ(shell("results/a/id -u", mnt(), kUser).output, "65534\n");
  EXPECT_NE(shell("cat results/a/null", mnt(), kUser).status, 0);
}

TEST_F(Security, ALinkInAResultTakesTheDaemonNowhere) {
  ASSERT_EQ(::mkdir((scratch() + "/outside").c_str(), 0755), 0);
  writeFile(scratch() + "/outside/f", "theirs");
  writeFile(scratch() + "/line", "build a --wait -c 'ln -s " + scratch() + "/outside d; ln -s " +
                                     scratch() + "/outside/f f'\n");
  ASSERT_EQ(shell("cat " + scratch() + "/line > control", mnt()).status, 0);
  const std::string at = "--base a --copy " + scratch() + "/line:d/new";
  writeFile(scratch() + "/line2", "build b " + at + " --wait -- true\n");
  (void)shell("cat " + scratch() + "/line2 > control", mnt());
  writeFile(scratch() + "/line3", "build c --base a --cache k:d/k --wait -- true\n");
  (void)shell("cat " + scratch() + "/line3 > control", mnt());
  ASSERT_EQ(shell("rmdir results/b results/c results/a 2>/dev/null; ls results", mnt()).output, "");
  EXPECT_EQ(shell("echo complete-deletes > control", mnt()).status, 0);
  EXPECT_EQ(entries(scratch() + "/outside"), 1U);
  EXPECT_EQ(readFile(scratch() + "/outside/f"), "theirs");
}

}  // namespace
}  // namespace kilnfs::testing
