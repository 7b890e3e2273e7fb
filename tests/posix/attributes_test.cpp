// Rows 50 to 63: inodes, links, times, owners, modes.

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include <functional>

#include "tests/posix/posix_test.h"

namespace kilnfs::testing {

ROW_ON(Row50_InodeNumbersAreStable, [] {
  put("f", "x");
  ::mkdir("d", 0755);
  put("d/g", "x");
}) {
  const ino_t file = statOf("f").st_ino;
  const ino_t dir = statOf("d").st_ino;
  const ino_t inside = statOf("d/g").st_ino;
  put("f", "changed");
  EXPECT_EQ(statOf("f").st_ino, file);
  ::chmod("f", 0600);
  ::rename("f", "d/f");
  EXPECT_EQ(statOf("d/f").st_ino, file);
  put("d/g", "changed");
  ::rename("d", "e");
  EXPECT_EQ(statOf("e").st_ino, dir);
  EXPECT_EQ(statOf("e/g").st_ino, inside);
  shell("echo 2 > /proc/sys/vm/drop_caches");
  EXPECT_EQ(statOf("e").st_ino, dir);
  EXPECT_EQ(statOf("e/f").st_ino, file);
  EXPECT_EQ(statOf("e/g").st_ino, inside);
}

LEASE_ROW_ON(Row51_InodeNumbersDifferBetweenTrees, [] { put("f", "x"); }) {
  Site& site = Site::get();
  const NativeTree native;
  put(native.path() + "/f", "x");
  for (const std::string& id : {site.fresh("n"), site.fresh("n")}) {
    EXPECT_TRUE(site.command("import " + id + " " + native.path()).ok);
    EXPECT_NE(statOf(site.mnt("results/" + id + "/f")).st_ino, statOf("f").st_ino);
    EXPECT_EQ(statOf(site.mnt("results/" + id)).st_dev, statOf("f").st_dev);
  }
}

ROW_ON(Row52_HardLinks, [] {
  put("f", "x");
  ASSERT_EQ(::link("f", "g"), 0);
  ::mkdir("d", 0755);
  ASSERT_EQ(::link("f", "d/h"), 0);
  put("single", "x");
}) {
  EXPECT_EQ(statOf("single").st_nlink, 1u);
  EXPECT_EQ(statOf("d/h").st_nlink, 3u);
  const ino_t ino = statOf("d/h").st_ino;
  EXPECT_EQ(statOf("f").st_ino, ino);
  put("g", "changed");
  EXPECT_EQ(get("d/h"), "changed");
  EXPECT_EQ(statOf("f").st_nlink, 3u);
  ASSERT_EQ(::unlink("f"), 0);
  EXPECT_EQ(statOf("g").st_nlink, 2u);
  EXPECT_EQ(statOf("d/h").st_nlink, 2u);
  ASSERT_EQ(::rename("g", "i"), 0);
  EXPECT_EQ(statOf("i").st_ino, ino);
  ASSERT_EQ(::link("single", "double"), 0);
  EXPECT_EQ(statOf("single").st_nlink, 2u);
  EXPECT_EQ(code(::link("d", "e")), EPERM);
  EXPECT_EQ(code(::link("i", "single")), EEXIST);
}
RESULT_ROW_ON(Row52_HardLinks, [] {
  put("f", "x");
  ASSERT_EQ(::link("f", "g"), 0);
  put("single", "x");
}) {
  EXPECT_EQ(statOf("g").st_nlink, 2u);
  EXPECT_EQ(statOf("f").st_ino, statOf("g").st_ino);
  EXPECT_EQ(statOf("single").st_nlink, 1u);
}

namespace {

const std::function<int()> kChanges[] = {
    [] { return ::write(open("f", O_WRONLY).get(), "C", 1) == 1 ? 0 : 1; },
    [] { return ::truncate("f", 1); },
    [] { return ::chmod("f", 0600); },
    [] { return ::chown("f", 1, 2); },
    [] {
      const struct timespec times[2] = {{1, 2}, {3, 4}};
      return ::utimensat(AT_FDCWD, "f", times, 0);
    },
    [] { return ::setxattr("f", "user.x", "y", 1, 0); },
    [] { return ::removexattr("f", "user.old"); },
    [] { return ::fallocate(open("f", O_RDWR).get(), 0, 0, 9000); },
    [] {
      char* map = static_cast<char*>(
          ::mmap(nullptr, 1, PROT_READ | PROT_WRITE, MAP_SHARED, open("f", O_RDWR).get(), 0));
      map[0] = 'M';
      return ::munmap(map, 1);
    },
    [] { return failure(open("f", O_RDWR | O_TRUNC)); },
    [] { return ::link("f", "g"); },
    [] { return ::rename("f", "g"); },
    [] { return ::unlink("f"); },
};

std::string all(const std::string& path) {
  return shell("stat -c '%f %u %g %s %y %h' f; cat f; getfattr -d f 2>/dev/null; ls -A", path)
      .output;
}

}  // namespace

LEASE_ROW_ON(Row53And54_NoChangeReachesTheSnapshot, nullptr) {
  Site& site = Site::get();
  const std::string cache = site.fresh("shared");
  std::string lease = site.lease(cache);
  put(site.mnt("leases/" + lease + "/f"), "content");
  ASSERT_EQ(::setxattr(site.mnt("leases/" + lease + "/f").c_str(), "user.old", "v", 1, 0), 0);
  ASSERT_TRUE(site.release(lease).ok);
  lease = site.lease(cache);
  const std::string before = all(site.mnt("leases/" + lease));
  ASSERT_TRUE(site.release(lease, " --discard").ok);
  for (const auto& change : kChanges) {
    lease = site.lease(cache);
    ASSERT_EQ(::chdir(site.mnt("leases/" + lease).c_str()), 0);
    EXPECT_EQ(change(), 0);
    EXPECT_NE(all("."), before);
    ASSERT_EQ(::chdir("/"), 0);
    ASSERT_TRUE(site.release(lease, " --discard").ok);
    lease = site.lease(cache);
    EXPECT_EQ(all(site.mnt("leases/" + lease)), before);
    ASSERT_TRUE(site.release(lease, " --discard").ok);
  }
}

ROW_ON(Row55_Times, [] {
  put("f", "x");
  ASSERT_EQ(::symlink("nowhere", "l"), 0);
}) {
  const struct timespec both[2] = {{1000000005, 11}, {1000000007, 12}};
  ASSERT_EQ(::utimensat(AT_FDCWD, "f", both, 0), 0);
  const struct timespec one[2] = {{0, UTIME_OMIT}, {3, 13}};
  ASSERT_EQ(::utimensat(AT_FDCWD, "f", one, 0), 0);
  EXPECT_EQ(statOf("f").st_atim.tv_nsec, 11);
  EXPECT_EQ(statOf("f").st_mtim.tv_nsec, 13);
  const struct timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
  ASSERT_EQ(::utimensat(AT_FDCWD, "f", now, 0), 0);
  EXPECT_GT(statOf("f").st_atim.tv_sec, 1000000005);
  EXPECT_EQ(statOf("f").st_mtim.tv_nsec, 13);
  ASSERT_EQ(::utimensat(AT_FDCWD, "l", both, AT_SYMLINK_NOFOLLOW), 0);
  EXPECT_EQ(statOf("l").st_mtim.tv_nsec, 12);
  ::chmod("f", 0666);
  EXPECT_EQ(asUser(kOther, [&] { return code(::utimensat(AT_FDCWD, "f", both, 0)); }), EPERM);
  EXPECT_EQ(asUser(kOther, [] { return code(::utimensat(AT_FDCWD, "f", nullptr, 0)); }), 0);
  ::chmod("f", 0600);
  EXPECT_EQ(asUser(kOther, [] { return code(::utimensat(AT_FDCWD, "f", nullptr, 0)); }), EACCES);
}

namespace {

/// Whether what `change` does moves the times of `path`: "m" for modification, "c" for change.
std::string moved(const std::string& path, const std::function<int()>& change) {
  const struct stat before = statOf(path);
  ::usleep(20000);  // clocks of old kernels are coarse
  EXPECT_EQ(change(), 0) << errno;
  const struct stat after = statOf(path);
  return std::string(before.st_mtim == after.st_mtim ? "" : "m") +
         (before.st_ctim == after.st_ctim ? "" : "c");
}

}  // namespace

ROW_ON(Row56_TimesMoveAsPosixSays, [] {
  put("f", "x");
  put("g", "x");
  put("h", "x");
  ASSERT_EQ(::link("h", "hard"), 0);
  ::mkdir("d", 0755);
  put("d/f", "x");
  ::mkdir("d/sub", 0755);
}) {
  if (onOverlay())
    instead("the ctime of a directory moves when an overlay copies up what is in it");
  const std::string copiedUp = onOverlay() ? "c" : "";
  EXPECT_EQ(moved("d", [] { return open("d/f", O_RDWR).valid() ? 0 : 1; }), copiedUp);
  EXPECT_EQ(moved("d/f", [] { return open("d/f", O_RDWR).valid() ? 0 : 1; }), "");
  EXPECT_EQ(moved("d", [] { return ::chmod("d/f", 0600); }), "");
  EXPECT_EQ(moved("d/f", [] { return ::chmod("d/f", 0640); }), "c");
  EXPECT_EQ(moved("d/f", [] { return ::write(open("d/f", O_RDWR).get(), "y", 1) == 1 ? 0 : 1; }),
            "mc");
  EXPECT_EQ(moved("d", [] { return ::mkdir("d/new", 0755); }), "mc");
  EXPECT_EQ(moved("d", [] { return ::rmdir("d/new"); }), "mc");
  EXPECT_EQ(moved("d", [] { return ::mkdir("d/sub/new", 0755); }), copiedUp);
  EXPECT_EQ(moved("d/sub", [] { return open("d/sub/x").valid() ? 0 : 1; }), "mc");
  EXPECT_EQ(moved("f", [] { return ::truncate("f", 0); }), "mc");
  EXPECT_EQ(moved("f", [] { return ::chown("f", 1, 1); }), "c");
  EXPECT_EQ(moved("f", [] { return ::chown("f", static_cast<uid_t>(-1), static_cast<gid_t>(-1)); }),
            "c");
  EXPECT_EQ(moved("g", [] { return ::link("g", "g2"); }), "c");
  EXPECT_EQ(moved("g", [] { return ::unlink("g2"); }), "c");
  EXPECT_EQ(moved("h", [] { return ::unlink("hard"); }), "c");
  EXPECT_EQ(moved("h", [] { return ::setxattr("h", "user.a", "b", 1, 0); }), "c");
  EXPECT_EQ(moved(".", [] { return ::rename("g", "g3"); }), "mc");
  EXPECT_EQ(moved(".", [] { return ::chmod("g3", 0600); }), "");
}

ROW_ON(Row56_ReadingMovesTheAccessTime, [] { put("f", "x"); }) {
  const struct timespec old[2] = {{1, 0}, {2, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, "f", old, 0), 0);
  shell("echo 1 > /proc/sys/vm/drop_caches");  // else the kernel need not ask
  EXPECT_EQ(get("f"), "x");
  EXPECT_GT(statOf("f").st_atim.tv_sec, 1);
}

ROW(Row57_UmaskAndDefaultAcls) {
  const Ran ran = shell(
      "umask 077; : > f; mkdir d; setfacl -d -m u:12345:rwx,g::rwx d || exit; umask 027; : > d/f; "
      "stat -c %a f; getfacl -cE d/f | grep -v '^$'",
      ".");
  EXPECT_EQ(ran.output, "600\nuser::rw-\nuser:12345:rwx\ngroup::rwx\nmask::rw-\nother::---\n");
}

ROW_ON(Row58_SetgidDirectories, [] {
  ::mkdir("s", 0755);
  ASSERT_EQ(::chown("s", 0, 4321), 0);
  ASSERT_EQ(::chmod("s", 02777), 0);
}) {
  EXPECT_EQ(asUser(kOther,
                   [] {
                     open("s/f");
                     open("s/x", O_RDWR | O_CREAT, 02755);
                     return code(::mkdir("s/d", 0755));
                   }),
            0);
  EXPECT_EQ(statOf("s/f").st_uid, kOther);
  EXPECT_EQ(statOf("s/f").st_gid, 4321u);
  EXPECT_EQ(statOf("s/d").st_mode & 07777, 02755u);
  // Who is not of the group can't make a program that acts for it.
  EXPECT_EQ(statOf("s/x").st_mode & 07777, 0755u);
  EXPECT_EQ(asUser(kOther, [] { return code(::chmod("s/f", 02755)); }), 0);
  EXPECT_EQ(statOf("s/f").st_mode & 07777, 0755u);
}

ROW_ON(Row59_StickyDirectories, [] {
  ::mkdir("t", 0755);
  ASSERT_EQ(::chmod("t", 01777), 0);
  put("t/roots", "");
  ::mkdir("t/rootsdir", 0777);
}) {
  EXPECT_EQ(asUser(kOther, [] { return code(::unlink("t/roots")); }), EPERM);
  EXPECT_EQ(asUser(kOther, [] { return code(::rename("t/roots", "t/mine")); }), EPERM);
  EXPECT_EQ(asUser(kOther, [] { return code(::rmdir("t/rootsdir")); }), EPERM);
  EXPECT_EQ(asUser(kOther,
                   [] {
                     open("t/mine");
                     return code(::rename("t/mine", "t/roots"));
                   }),
            EPERM);
  EXPECT_EQ(asUser(kOther, [] { return code(::rename("t/mine", "t/other")); }), 0);
  EXPECT_EQ(asUser(4001, [] { return code(::unlink("t/other")); }), EPERM);
  EXPECT_EQ(asUser(kOther, [] { return code(::unlink("t/other")); }), 0);
}

ROW_ON(Row60_OwnersOfNewFiles, [] {
  ::mkdir("d", 0755);
  ASSERT_EQ(::chmod("d", 0777), 0);
}) {
  EXPECT_EQ(asUser(kOther,
                   [] {
                     open("d/f");
                     ::symlink("f", "d/l");
                     ::mkfifo("d/p", 0644);
                     return code(::mkdir("d/d", 0755));
                   }),
            0);
  for (const char* name : {"d/f", "d/l", "d/p", "d/d"}) {
    EXPECT_EQ(statOf(name).st_uid, kOther) << name;
    EXPECT_EQ(statOf(name).st_gid, kOther) << name;
  }
}

ROW_ON(Row61_SupplementaryGroups, [] {
  put("f", "x");
  ASSERT_EQ(::chown("f", 0, 4242), 0);
  ASSERT_EQ(::chmod("f", 0660), 0);
}) {
  EXPECT_EQ(shell("setpriv --reuid=4001 --regid=4001 --groups=4242 cat f", ".").output, "x");
  EXPECT_NE(shell("setpriv --reuid=4001 --regid=4001 --clear-groups cat f", ".").status, 0);
}

ROW_ON(Row62_SetIdBitsGoWhenOthersWrite, [] {
  for (const char* name : {"0", "1", "2", "3", "4"}) {
    put(name, "x");
    ASSERT_EQ(::chmod(name, 06777), 0);
  }
}) {
  const std::function<int(const char*)> ways[] = {
      [](const char* f) { return ::write(open(f, O_WRONLY).get(), "y", 1) == 1 ? 0 : 1; },
      [](const char* f) { return ::ftruncate(open(f, O_WRONLY).get(), 0); },
      [](const char* f) { return failure(open(f, O_WRONLY | O_TRUNC)); },
      [](const char* f) { return ::truncate(f, 0); },
      [](const char* f) { return ::fallocate(open(f, O_WRONLY).get(), 0, 0, 100); }};
  for (int i = 0; i < 5; ++i) {
    const std::string f = std::to_string(i);
    EXPECT_EQ(asUser(kOther, [&] { return ways[i](f.c_str()); }), 0) << i;
    EXPECT_EQ(statOf(f).st_mode & 07777, 0777u) << i;
  }
  ASSERT_EQ(::chmod("0", 06755), 0);
  put("0", "by root");
  EXPECT_EQ(statOf("0").st_mode & 07777, 06755u);
  ASSERT_EQ(::chown("0", 1, 1), 0);
  EXPECT_EQ(statOf("0").st_mode & 07777, 0755u);
}

ROW_ON(Row63_SetIdFilesAreKeptButNotActedOn, [] {
  ASSERT_EQ(shell("cp /usr/bin/id id && chmod 4755 id", ".").status, 0);
  ::chmod(".", 0755);
}) {
  EXPECT_EQ(statOf("id").st_mode & 07777, 04755u);
  if (onNative()) return;
  instead("the bit is kept, but a mount is nosuid by default: the program runs as its caller");
  EXPECT_EQ(shell("./id -u", ".", kOther).output, "65534\n");
}

}  // namespace kilnfs::testing
