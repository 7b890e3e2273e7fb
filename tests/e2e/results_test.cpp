// Results through the mount: everything a tree can hold, exactly as it is on disk, and no change.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <set>

#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

class Results : public MountedStore {
 protected:
  void SetUp() override {
    MountedStore::SetUp();
    const Ran made = shell(
        "mkdir -p store/result/all store/result-tmp store/cache store/cache-tmp store/log && "
        "cd store/result/all && mkdir dir && echo text > file && ln file dir/hard && "
        "ln -s ../file dir/soft && ln -s dangling broken && mkfifo pipe && "
        "truncate -s 60M sparse && printf x | dd of=sparse bs=1 seek=30M conv=notrunc 2>/dev/null "
        "&& "
        "touch -d '2001-02-03 04:05:06.123456789' dir/hard && touch -h -d @987654321.5 dir/soft && "
        "setfattr -n user.note -v value file && setfacl -m u:12345:rx dir && "
        "setfacl -d -m g:54321:rwx dir && chmod 6755 file && : > empty && chmod 0 empty && "
        "touch \"$(printf 'x%.0s' $(seq 255))\" \"$(printf 'new\\nline \\377')\" ./-rf '.wh.x' && "
        "head -c 3000000 /dev/urandom > random",
        dir_.path());
    ASSERT_EQ(made.status, 0) << made.output;
    const std::string all = store() + "/result/all";
    ASSERT_EQ(::mknod((all + "/socket").c_str(), S_IFSOCK | 0640, 0), 0);
    if (::geteuid() == 0) {
      ASSERT_EQ(::mknod((all + "/device").c_str(), S_IFBLK | 0600, makedev(7, 200)), 0);
      ASSERT_EQ(::lchown((all + "/dir/soft").c_str(), 3000000000U, 7), 0);
      ASSERT_EQ(::setxattr((all + "/dir").c_str(), "trusted.t", "1", 1, 0), 0);
    }
  }
};

TEST_F(Results, HoldEverythingAsItIsOnDisk) {
  start();
  const std::string both = store() + "/result/all/ " + mnt("results/all/");
  const Ran differ = shell("rsync -naHAXi --checksum --delete --numeric-ids " + both);
  EXPECT_EQ(differ.status, 0);
  EXPECT_EQ(differ.output, "");
  // Also the other way round: nothing more either, and what rsync does not look at.
  const std::string find = "find . -printf '%P %y %m %U %G %n %s %T@ %l %b\\n' | sort";
  const Ran onDisk = shell(find, store() + "/result/all");
  EXPECT_EQ(onDisk.output, shell(find, mnt("results/all")).output);
  EXPECT_EQ(shell("getfattr -hRd -m - . | sort", store() + "/result/all").output,
            shell("getfattr -hRd -m - . | sort", mnt("results/all")).output);
  EXPECT_EQ(shell("stat -c %t:%T device", mnt("results/all")).output, "7:c8\n");
}

TEST_F(Results, ListingsAndStatSayTheSameInode) {
  start();
  const Ran ran = shell(
      "find . -printf '%i %p\\0' | LC_ALL=C sort -z; ls -aRi >/dev/null && "
      "[ $(stat -c %i file) = $(stat -c %i dir/hard) ] && "
      "[ $(stat -c %i file) != $(stat -c %i random) ]",
      mnt("results/all"));
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_EQ(shell("ls -1Ui results | awk '{print $1}'", mnt()).output,
            shell("stat -c %i results/all", mnt()).output);
}

TEST_F(Results, StaySparse) {
  start();
  const Ran ran = shell(
      "cp --sparse=auto " + mnt("results/all/sparse") + " copy && stat -c %b copy", scratch());
  EXPECT_EQ(ran.status, 0);
  EXPECT_LT(std::stol(ran.output), 1000);
}

TEST_F(Results, MayBeLargerThan32BitsCount) {
  ASSERT_EQ(shell("mkdir b && truncate -s 6G b/big && printf end | dd of=b/big bs=1 seek=5G "
                  "conv=notrunc 2>/dev/null",
                  store() + "/result")
                .status,
            0);
  start();
  EXPECT_EQ(shell("stat -c %s big && tail -c +5368709121 big | head -c 3", mnt("results/b")).output,
            "6442450944\nend");
}

TEST_F(Results, RefuseEveryChangeWithErofs) {
  start();
  const std::string all = mnt("results/all");
  struct stat st;
  ASSERT_EQ(::stat(all.c_str(), &st), 0);
  const auto code = [](int failed) { return failed == 0 ? 0 : errno; };
  EXPECT_EQ(code(::open((all + "/file").c_str(), O_WRONLY) < 0), EROFS);
  EXPECT_EQ(code(::open((all + "/file").c_str(), O_RDONLY | O_TRUNC) < 0), EROFS);
  EXPECT_EQ(code(::open((all + "/new").c_str(), O_RDWR | O_CREAT, 0644) < 0), EROFS);
  EXPECT_EQ(code(::truncate((all + "/file").c_str(), 0)), EROFS);
  EXPECT_EQ(code(::chmod((all + "/file").c_str(), 0600)), EROFS);
  EXPECT_EQ(code(::lchown((all + "/file").c_str(), 1, 1)), EROFS);
  EXPECT_EQ(code(::utimensat(AT_FDCWD, (all + "/file").c_str(), nullptr, 0)), EROFS);
  EXPECT_EQ(code(::unlink((all + "/file").c_str())), EROFS);
  EXPECT_EQ(code(::rmdir((all + "/dir").c_str())), EROFS);
  EXPECT_EQ(code(::mkdir((all + "/new").c_str(), 0755)), EROFS);
  EXPECT_EQ(code(::symlink("x", (all + "/new").c_str())), EROFS);
  EXPECT_EQ(code(::mknod((all + "/new").c_str(), S_IFIFO | 0644, 0)), EROFS);
  EXPECT_EQ(code(::link((all + "/file").c_str(), (all + "/new").c_str())), EROFS);
  EXPECT_EQ(code(::rename((all + "/file").c_str(), (all + "/new").c_str())), EROFS);
  EXPECT_EQ(code(::setxattr((all + "/file").c_str(), "user.a", "b", 1, 0)), EROFS);
  EXPECT_EQ(code(::removexattr((all + "/file").c_str(), "user.note")), EROFS);
  EXPECT_EQ(code(::mkdir(mnt("results/new").c_str(), 0755)), EROFS);
  EXPECT_EQ(code(::open(mnt("results/new").c_str(), O_RDWR | O_CREAT, 0644) < 0), EROFS);
  EXPECT_EQ(code(::rename(mnt("results/all").c_str(), mnt("results/b").c_str())), EROFS);
  EXPECT_EQ(code(::mkdir(mnt("new").c_str(), 0755)), EPERM);
  EXPECT_EQ(code(::mkdir(mnt("logs/new").c_str(), 0755)), EPERM);
  // What was sealed is what is there.
  EXPECT_EQ(shell("cat file; stat -c %a:%h file", all).output, "text\n6755:2\n");
}

TEST_F(Results, ReadingDoesNotWriteAccessTimes) {
  start();
  const std::string file = store() + "/result/all/random";
  ASSERT_EQ(shell("touch -a -d @1 " + file).status, 0);
  ASSERT_EQ(shell("cat random > /dev/null; ls dir > /dev/null", mnt("results/all")).status, 0);
  EXPECT_EQ(shell("stat -c %X " + file).output, "1\n");
}

TEST_F(Results, AreDeletedByRmdirButReadOnByWhoHasThemOpen) {
  start();
  const int fd = ::open(mnt("results/all/file").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(shell("rmdir results/all", mnt()).status, 0);
  struct stat st;
  EXPECT_NE(::stat(mnt("results/all").c_str(), &st), 0);
  char text[8] = {};
  EXPECT_EQ(::pread(fd, text, sizeof text, 0), 5);
  EXPECT_STREQ(text, "text\n");
  ::close(fd);
  EXPECT_EQ(shell("rmdir results/all", mnt()).status, 1);
}

TEST_F(Results, NamesThatAreNoIdsAreNotThere) {
  ASSERT_EQ(::mkdir((store() + "/result/.hidden").c_str(), 0755), 0);
  start();
  EXPECT_EQ(shell("ls -A results", mnt()).output, "all\n");
  EXPECT_EQ(::access(mnt("results/.hidden").c_str(), F_OK), -1);
  EXPECT_EQ(errno, ENOENT);
}

TEST_F(Results, ManyAreListedInFull) {
  ASSERT_EQ(shell("seq -f id%g 5000 | xargs mkdir", store() + "/result").status, 0);
  start();
  EXPECT_EQ(shell("ls -U results | sort | uniq | wc -l", mnt()).output, "5001\n");
  EXPECT_EQ(shell("ls -l results | wc -l", mnt()).output, "5002\n");
}

}  // namespace
}  // namespace kilnfs::testing
