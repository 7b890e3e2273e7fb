// Own files of the mount: README, control, events, errors, logs, and the daemon's start and end.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

class Files : public MountedStore {};

TEST_F(Files, TheRootHoldsWhatItShould) {
  start();
  EXPECT_EQ(shell("ls", mnt()).output,
            "README\nbuilds\ncaches\ncontrol\nerrors\nevents\nleases\nlogs\nmetrics\nresults\n");
  EXPECT_EQ(shell("stat -c %a:%U control", mnt()).output, "600:root\n");
  EXPECT_NE(shell("cat README", mnt()).output.find("results/<id>"), std::string::npos);
  EXPECT_EQ(shell("dd if=README bs=1 skip=3 count=3 2>/dev/null", mnt()).output, "nfs");
  EXPECT_EQ(shell("cat errors metrics > /dev/null && : > control", mnt()).status, 0);
}

TEST_F(Files, ControlHasTheOptionsModeAndGroup) {
  start({"control_mode=0660,control_gid=4321", "jobs=2,rw,_netdev,x-systemd.automount"});
  EXPECT_EQ(shell("stat -c %a:%g control", mnt()).output, "660:4321\n");
}

TEST_F(Files, OtherUsersSeeTheMountUnlessTheyMayNot) {
  start();
  EXPECT_EQ(shell("cat README > /dev/null", mnt(), 65534).status, 0);
  EXPECT_NE(shell("echo status > control", mnt(), 65534).status, 0);
  finish();
  start({"no_allow_other"});
  EXPECT_NE(shell("cat " + mnt("README"), "/", 65534).status, 0);
}

TEST_F(Files, EventsStreamBlockAndAreInterrupted) {
  ASSERT_EQ(shell("mkdir -p store/result/r store/result-tmp store/cache store/cache-tmp store/log",
                  dir_.path())
                .status,
            0);
  start();
  const int fd = ::open(mnt("events").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  char text[4096];
  while (::read(fd, text, sizeof text) > 0) {
  }
  EXPECT_EQ(errno, EAGAIN);
  struct pollfd waits = {fd, POLLIN, 0};
  EXPECT_EQ(::poll(&waits, 1, 0), 0);
  std::thread deleter([&] { shell("rmdir results/r", mnt()); });
  EXPECT_EQ(::poll(&waits, 1, -1), 1);
  const ssize_t n = ::read(fd, text, sizeof text);
  ASSERT_GT(n, 0);
  EXPECT_NE(std::string(text, static_cast<size_t>(n)).find("\"deleted\""), std::string::npos);
  deleter.join();
  ::close(fd);
  // A reader that waits is ended by a signal at once.
  EXPECT_EQ(
      shell("timeout -s INT --preserve-status 0.3 cat events | grep -c deleted", mnt()).output,
      "1\n");
}

TEST_F(Files, LogsAreReadAndRemoved) {
  ASSERT_EQ(shell("mkdir -p store/result/old/rootfs store/result-tmp store/cache store/cache-tmp "
                  "store/log && echo inside > store/result/old/log && echo beside > store/log/new",
                  dir_.path())
                .status,
            0);
  start();
  EXPECT_EQ(shell("ls logs && cat logs/new logs/old", mnt()).output, "new\nold\nbeside\ninside\n");
  EXPECT_EQ(shell("stat -c '%s %a' logs/new", mnt()).output.substr(0, 2), "7 ");
  EXPECT_NE(shell("echo x >> logs/new", mnt()).status, 0);
  const int fd = ::open(mnt("logs/new").c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(shell("rm -f logs/new && ls logs", mnt()).output, "old\n");
  struct stat st;
  EXPECT_EQ(::fstat(fd, &st), 0);
  EXPECT_EQ(st.st_size, 7);
  ::close(fd);
  EXPECT_NE(shell("cat logs/new", mnt()).status, 0);
}

class Start : public MountedStore {
 protected:
  Ran kilnfs(const std::string& arguments) {
    return shell(std::string(KILNFS_BIN) + "/kilnfs " + arguments, dir_.path());
  }
};

TEST_F(Start, InTheBackgroundReturnsWhenTheMountAnswers) {
  // A store that needs recovering, which is logged, but not to the caller.
  ASSERT_EQ(shell("mkdir -p store/result/r store/result-tmp store/cache store/cache-tmp store/log",
                  dir_.path())
                .status,
            0);
  const Ran ran = kilnfs("store mnt -o rw,noauto");
  EXPECT_EQ(ran.status, 0);
  EXPECT_EQ(ran.output, "");
  EXPECT_EQ(shell("ls mnt/README && grep -q recover store/state/kilnfs.log", dir_.path()).status,
            0);
  EXPECT_EQ(shell("umount mnt", dir_.path()).status, 0);
  int status = 0;
  ASSERT_GT(::wait(&status), 0);  // the daemon, which ends by itself
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(mountsBelow(dir_.path()).empty());
}

TEST_F(Start, WhatIsWrongIsSaidInOneLine) {
  ASSERT_EQ(shell("echo x > file; mkdir full; echo x > full/x", dir_.path()).status, 0);
  struct Case {
    const char* arguments;
    int status;
    const char* says;
  };
  const Case cases[] = {
      {"store missing", 1, "missing does not exist"},
      {"store file", 1, "file is not a directory"},
      {"store full", 1, "full is not empty"},
      {"file mnt", 1, "file"},
      {"full mnt", 1, "full"},
      {"none/store mnt", 1, "none/store"},
      {"mnt/store mnt", 1, "inside one another"},
      {"store mnt -o nonsense", 2, "'nonsense'"},
      {"store mnt -o mode=tar", 2, "tar"},
      {"store mnt -o jobs=0", 2, "jobs"},
      {"store", 2, "MNT"},
      {"store mnt --nonsense", 2, "nonsense"},
  };
  for (const Case& c : cases) {
    const Ran ran = kilnfs(c.arguments);
    EXPECT_EQ(ran.status, c.status) << c.arguments << ": " << ran.output;
    EXPECT_NE(ran.output.find(c.says), std::string::npos) << c.arguments << ": " << ran.output;
    EXPECT_EQ(ran.output.find('\n'), ran.output.size() - 1) << c.arguments << ": " << ran.output;
  }
  EXPECT_EQ(kilnfs("--version").status, 0);
  EXPECT_EQ(kilnfs("-h").status, 0);
}

TEST_F(Start, ASecondDaemonIsRefused) {
  start();
  ASSERT_EQ(shell("mkdir other", dir_.path()).status, 0);
  const Ran ran = kilnfs("store other");
  EXPECT_EQ(ran.status, 1);
  EXPECT_NE(ran.output.find("store"), std::string::npos) << ran.output;
  EXPECT_TRUE(mountsBelow(dir_ / "other").empty());
}

// The daemon ends after its mount is gone.
TEST_F(Start, AgainAtOnceAfterAnUnmount) {
  const std::string daemon = std::string(KILNFS_BIN) + "/kilnfs";
  const Ran ran = shell("for i in 1 2 3 4 5 6 7 8; do " + daemon +
                            " store mnt && setsid sh -c 'echo $0 > mnt/caches/c/f' $i && umount mnt"
                            " || exit; done",
                        dir_.path());
  EXPECT_EQ(ran.status, 0) << ran.output;
  while (::wait(nullptr) > 0) {
  }
}

// What mounts for fstab adds both words unless it is told not to.
TEST_F(Start, IsNosuidAndNodevWhoeverMounts) {
  const std::string daemon = std::string(KILNFS_BIN) + "/kilnfs";
  const std::string flags =
      "; findmnt -no OPTIONS mnt | tr , '\\n' | grep -cx -e nosuid -e nodev; umount mnt";
  EXPECT_EQ(kilnfs("store mnt -o suid,dev" + flags).output, "2\n");
  EXPECT_EQ(
      shell("mount -t fuse3 " + daemon + "#" + store() + " mnt -o jobs=2" + flags, dir_.path())
          .output,
      "2\n");
  while (::wait(nullptr) > 0) {
  }
}

// Else nothing could be deleted any more.
TEST_F(Start, OnAFullFileSystem) {
  if (::geteuid() != 0) GTEST_SKIP() << "declared: needs to mount a tmpfs";
  const std::string daemon = std::string(KILNFS_BIN) + "/kilnfs small/store mnt";
  const Ran ran =
      shell("mkdir small && mount -t tmpfs -o size=6m none small && " + daemon +
                " && echo 'build r --wait -- truncate -s 1M f' > mnt/control && umount mnt"
                " && sleep 0.1; cat /dev/zero > small/fill 2> /dev/null; " +
                daemon +
                " && rmdir mnt/results/r && ls mnt/results && umount mnt"
                " && while ! umount small 2>/dev/null; do sleep 0.1; done",
            dir_.path());
  EXPECT_EQ(ran.output, "");
  EXPECT_EQ(ran.status, 0);
  while (::wait(nullptr) > 0) {
  }
}

TEST_F(Start, AMountOfADeadDaemonIsCleared) {
  start();
  daemon_->end(SIGKILL);
  EXPECT_NE(shell("ls " + mnt()).status, 0);
  start();
  EXPECT_EQ(shell("ls results", mnt()).status, 0);
}

TEST_F(Start, AnyUserCanMount) {
  // The programs may be below a directory that is root's alone.
  ASSERT_EQ(shell("mkdir store && chown 65534:65534 mnt store scratch && cp -r " KILNFS_BIN " bin",
                  dir_.path())
                .status,
            0);
  // udev lets any user open /dev/fuse. Where it is not so, a mount namespace of our own has one
  // that is.
  const bool forAll = shell("test \"$(($(stat -c 0%a /dev/fuse) & 6))\" = 6").status == 0;
  if (!forAll && shell("unshare -m true").status != 0) {
    GTEST_SKIP() << "declared: needs a /dev/fuse for all, or a mount namespace";
  }
  const std::string own =
      "mknod fuse c 10 229 && chmod 666 fuse && exec unshare -m sh -euc 'mount --bind fuse "
      "/dev/fuse; ";
  const Ran ran = shell(
      (forAll ? "exec sh -euc '" : own) +
          "exec setpriv --reuid=65534 --regid=65534 --clear-groups sh "
          "-euc \""
          "cd $0; bin/kilnfs store mnt; "
          "(cd -P mnt/caches/c; umask 077; echo x > f; ln f g; mv f h; cat g; stat -c %u:%a h; rm "
          "g); "
          "fusermount3 -u mnt; while [ ! -e store/cache/c/h ]; do sleep 0.05; done; "
          "cat store/cache/c/h\"' " +
          dir_.path(),
      dir_.path());
  EXPECT_EQ(ran.output, "x\n65534:600\nx\n");
  EXPECT_EQ(ran.status, 0);
  int status = 0;
  ASSERT_GT(::wait(&status), 0);
  EXPECT_EQ(status, 0);
}

TEST_F(Start, EndsThoughSomebodyHasTheMountOpen) {
  start();
  const int fd = ::open(mnt("events").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  const int lease = ::open(mnt("caches/c").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_GE(lease, 0);
  finish();
  ::close(fd);
  ::close(lease);
}

}  // namespace
}  // namespace kilnfs::testing
