// What ext4 does, a lease does: rows of a list of cases that file systems get wrong, tried in a
// lease through the mount.

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <climits>
#include <filesystem>
#include <set>

#include "store/base/fd.h"
#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

constexpr unsigned kOther = 65534;

int code(long result) {
  return result < 0 ? errno : 0;
}

class Lease : public MountedStore {
 protected:
  void SetUp() override {
    MountedStore::SetUp();
    start();
    former_ = std::filesystem::current_path();
    std::filesystem::current_path(std::filesystem::canonical(mnt("caches/c")));
  }
  void TearDown() override {
    std::filesystem::current_path(former_);
    MountedStore::TearDown();
  }

  static UniqueFd open(const std::string& name, int flags = O_RDWR | O_CREAT, mode_t mode = 0644) {
    return UniqueFd(::open(name.c_str(), flags | O_CLOEXEC, mode));
  }
  static void put(const std::string& name, const std::string& text) {
    const UniqueFd fd = open(name, O_WRONLY | O_CREAT | O_TRUNC);
    ASSERT_EQ(::write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  static std::string get(const std::string& name) { return readFile(name); }
  static struct stat stat(const std::string& name) {
    struct stat st = {};
    EXPECT_EQ(::lstat(name.c_str(), &st), 0) << name;
    return st;
  }
  static struct stat stat(const UniqueFd& fd) {
    struct stat st = {};
    EXPECT_EQ(::fstat(fd.get(), &st), 0);
    return st;
  }

  std::filesystem::path former_;
};

TEST_F(Lease, Row1NamesOf255Bytes) {
  EXPECT_TRUE(open(std::string(255, 'n')).valid());
  EXPECT_FALSE(open(std::string(256, 'n')).valid());
  EXPECT_EQ(errno, ENAMETOOLONG);
}

TEST_F(Lease, Row2NamesAreBytes) {
  const std::set<std::string> names = {"new\nline", "\xff\xfe",   "-rf", ".wh.x",
                                       "caf\u00e9", "cafe\u0301", "A",   "a"};
  for (const auto& name : names) put(name, name);
  std::set<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(".")) {
    found.insert(entry.path().filename().string());
  }
  EXPECT_EQ(found, names);
  for (const auto& name : names) EXPECT_EQ(get(name), name);
}

TEST_F(Lease, Row5WorkingDirectoryFollowsItsName) {
  ::mkdir("d", 0755);
  ASSERT_EQ(::chdir("d"), 0);
  ASSERT_EQ(::rename("../d", "../e"), 0);
  EXPECT_EQ(std::filesystem::current_path().filename(), "e");
  ASSERT_EQ(::rmdir("../e"), 0);
  char path[PATH_MAX];
  EXPECT_EQ(::getcwd(path, sizeof path), nullptr);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_FALSE(open("f").valid());
  EXPECT_EQ(errno, ENOENT);
}

TEST_F(Lease, Row6DirectoryOfAnUnlinkedOpenFile) {
  ::mkdir("d", 0755);
  const UniqueFd fd = open("d/f");
  ::unlink("d/f");
  EXPECT_EQ(code(::rmdir("d")), 0);
}

TEST_F(Lease, Row7ListingWhileEntriesAreRemoved) {
  ::mkdir("d", 0755);
  for (int i = 0; i < 2000; ++i) open("d/f" + std::to_string(1000000 + i));
  std::multiset<std::string> seen;
  DIR* dir = ::opendir("d");
  while (const dirent* entry = ::readdir(dir)) {
    if (entry->d_name[0] != 'f') continue;
    seen.insert(entry->d_name);
    ::unlinkat(::dirfd(dir), entry->d_name, 0);
  }
  ::closedir(dir);
  EXPECT_EQ(seen.size(), 2000u);
  EXPECT_EQ(code(::rmdir("d")), 0);
}

TEST_F(Lease, Row9Telldir) {
  for (int i = 0; i < 300; ++i) open("f" + std::to_string(1000000 + i));
  DIR* dir = ::opendir(".");
  for (int i = 0; i < 100; ++i) ::readdir(dir);
  const long at = ::telldir(dir);
  const std::string next = ::readdir(dir)->d_name;
  while (::readdir(dir) != nullptr) {
  }
  ::seekdir(dir, at);
  EXPECT_EQ(::readdir(dir)->d_name, next);
  put("later", "");
  ::rewinddir(dir);
  bool found = false;
  while (const dirent* entry = ::readdir(dir)) found |= std::string(entry->d_name) == "later";
  EXPECT_TRUE(found);
  ::closedir(dir);
}

TEST_F(Lease, Row10ListingAndStatAgree) {
  put("f", "");
  ::mkdir("d", 0755);
  ::symlink("f", "l");
  std::set<std::string> names;
  DIR* dir = ::opendir(".");
  while (const dirent* entry = ::readdir(dir)) {
    names.insert(entry->d_name);
    EXPECT_EQ(IFTODT(stat(entry->d_name).st_mode), entry->d_type) << entry->d_name;
    if (std::string(entry->d_name) != "..") {
      EXPECT_EQ(stat(entry->d_name).st_ino, entry->d_ino) << entry->d_name;
    }
  }
  ::closedir(dir);
  EXPECT_EQ(names, (std::set<std::string>{".", "..", "f", "d", "l"}));
}

TEST_F(Lease, Row13RenamesThatCannotBe) {
  ::mkdir("d", 0755);
  ::mkdir("d/e", 0755);
  ::mkdir("g", 0755);
  put("f", "");
  EXPECT_EQ(code(::rename("d", "d/e/x")), EINVAL);
  EXPECT_EQ(code(::rename("g", "d")), ENOTEMPTY);
  EXPECT_EQ(code(::rename("f", "g")), EISDIR);
  EXPECT_EQ(code(::rename("g", "f")), ENOTDIR);
}

TEST_F(Lease, Row15NothingMovesBetweenTrees) {
  const std::string other = std::filesystem::canonical(mnt("caches/other"));
  put("f", "x");
  EXPECT_EQ(code(::rename("f", (other + "/f").c_str())), EXDEV);
  EXPECT_EQ(code(::link("f", (other + "/f").c_str())), EXDEV);
  EXPECT_EQ(code(::rename("f", mnt("results/f").c_str())), EXDEV);
}

TEST_F(Lease, Row16RenameFlags) {
  put("a", "a");
  put("b", "b");
  EXPECT_EQ(code(::renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE)), EEXIST);
  EXPECT_EQ(code(::renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE)), 0);
  EXPECT_EQ(get("a") + get("b"), "ba");
  EXPECT_EQ(code(::renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_WHITEOUT)), EINVAL);
}

TEST_F(Lease, Row18WhatWasRemovedStaysRemoved) {
  EXPECT_EQ(shell("mkdir -p d/e; echo x > d/e/f; rm -r d; mkdir d; ls -A d; mkdir -p n/e; rm -r d; "
                  "mv n d; ls -A d/e",
                  ".")
                .output,
            "");
}

TEST_F(Lease, Row20VeryLongPaths) {
  const auto top = std::filesystem::current_path();
  const std::string name(200, 'd');
  for (int i = 0; i < 40; ++i) {
    ASSERT_EQ(::mkdir(name.c_str(), 0755), 0);
    ASSERT_EQ(::chdir(name.c_str()), 0);
  }
  put("f", "deep");
  EXPECT_EQ(get("f"), "deep");
  ASSERT_EQ(::chdir(top.c_str()), 0);
  EXPECT_EQ(shell("rm -r ddd*", ".").status, 0);
}

TEST_F(Lease, Row21AnUnlinkedFileGoesOn) {
  const UniqueFd fd = open("f");
  ASSERT_EQ(::write(fd.get(), "hello", 5), 5);
  ::unlink("f");
  EXPECT_EQ(stat(fd).st_nlink, 0u);
  EXPECT_EQ(stat(fd).st_size, 5);
  EXPECT_EQ(code(::ftruncate(fd.get(), 2)), 0);
  EXPECT_EQ(code(::fchmod(fd.get(), 0600)), 0);
  const struct timespec times[2] = {{1, 2}, {3, 4}};
  EXPECT_EQ(code(::futimens(fd.get(), times)), 0);
  EXPECT_EQ(code(::fsetxattr(fd.get(), "user.a", "b", 1, 0)), 0);
  char text[8] = {};
  EXPECT_EQ(::fgetxattr(fd.get(), "user.a", text, sizeof text), 1);
  EXPECT_EQ(::pread(fd.get(), text, sizeof text, 0), 2);
  EXPECT_EQ(stat(fd).st_mode & 07777, 0600u);
  EXPECT_EQ(stat(fd).st_mtim.tv_nsec, 4);
  EXPECT_EQ(stat(fd).st_size, 2);
}

TEST_F(Lease, Row22RenameOverAnOpenFile) {
  put("f", "old");
  put("g", "new");
  const UniqueFd fd = open("f", O_RDONLY);
  ASSERT_EQ(::rename("g", "f"), 0);
  char text[8] = {};
  EXPECT_EQ(::read(fd.get(), text, sizeof text), 3);
  EXPECT_STREQ(text, "old");
  EXPECT_EQ(stat(fd).st_nlink, 0u);
  EXPECT_EQ(get("f"), "new");
}

TEST_F(Lease, Row23TruncationIsSeenByOthers) {
  put("f", std::string(9000, 'x'));
  const UniqueFd a = open("f");
  const UniqueFd b = open("f");
  ::ftruncate(a.get(), 3);
  EXPECT_EQ(stat(b).st_size, 3);
  ::ftruncate(a.get(), 6);
  EXPECT_EQ(get("f"), std::string("xxx\0\0\0", 6));
}

TEST_F(Lease, Row24Appenders) {
  std::vector<pid_t> children;
  for (const char c : {'a', 'b', 'c', 'd'}) {
    const pid_t child = ::fork();
    if (child == 0) {
      const UniqueFd fd = open("log", O_WRONLY | O_APPEND | O_CREAT);
      const std::string line = std::string(60, c) + "\n";
      for (int i = 0; i < 300; ++i) {
        if (::write(fd.get(), line.data(), line.size()) != 61) ::_exit(1);
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(shell("sort log | uniq -c | awk '{print $1, length($2)}'", ".").output,
            "300 60\n300 60\n300 60\n300 60\n");
}

TEST_F(Lease, Row24AppendingThroughAMappingAndWithoutTheFlag) {
  const UniqueFd fd = open("f", O_RDWR | O_CREAT | O_APPEND);
  const std::string page(8192, 'q');
  ASSERT_EQ(::write(fd.get(), page.data(), page.size()), 8192);
  auto* map =
      static_cast<char*>(::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  map[0] = 'M';
  EXPECT_EQ(::msync(map, 8192, MS_SYNC), 0);
  ::munmap(map, 8192);
  EXPECT_EQ(stat(fd).st_size, 8192);
  ::fcntl(fd.get(), F_SETFL, 0);
  EXPECT_EQ(::pwrite(fd.get(), "z", 1, 1), 1);
  EXPECT_EQ(stat(fd).st_size, 8192);
  EXPECT_EQ(get("f").substr(0, 3), "Mzq");
}

TEST_F(Lease, Row26ExclusiveCreationHasOneWinner) {
  EXPECT_EQ(
      shell("for i in 1 2 3 4 5 6 7 8; do (set -C; : > f) 2>/dev/null && echo won & done; wait",
            ".")
          .output,
      "won\n");
}

TEST_F(Lease, Row37To39Mappings) {
  const UniqueFd fd = open("f");
  ASSERT_EQ(::ftruncate(fd.get(), 4096), 0);
  auto* map =
      static_cast<char*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  map[0] = 'M';
  EXPECT_EQ(get("f")[0], 'M');
  ASSERT_EQ(::pwrite(fd.get(), "W", 1, 1), 1);
  EXPECT_EQ(map[1], 'W');
  ::unlink("f");
  map[2] = 'U';
  EXPECT_EQ(::msync(map, 4096, MS_SYNC), 0);
  EXPECT_EQ(asUser(0,
                   [&] {
                     ::ftruncate(fd.get(), 0);
                     volatile char c = map[0];
                     return c;
                   }),
            128 + SIGBUS);
  ::munmap(map, 4096);
}

TEST_F(Lease, Row38AMappingMadeBeforeTheFirstWriteSeesIt) {
  put("f", "aaaa");
  const UniqueFd fd = open("f", O_RDONLY);
  auto* map = static_cast<char*>(::mmap(nullptr, 4, PROT_READ, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  const UniqueFd writer = open("f", O_WRONLY);
  ASSERT_EQ(::write(writer.get(), "bbbb", 4), 4);
  EXPECT_EQ(map[0], 'b');
  ::munmap(map, 4);
}

TEST_F(Lease, Row41Fallocate) {
  const UniqueFd fd = open("f");
  EXPECT_EQ(code(::fallocate(fd.get(), 0, 0, 65536)), 0);
  EXPECT_EQ(stat(fd).st_size, 65536);
  EXPECT_EQ(code(::fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 65536, 65536)), 0);
  EXPECT_EQ(stat(fd).st_size, 65536);
  const std::string bytes(65536, 'x');
  ASSERT_EQ(::pwrite(fd.get(), bytes.data(), bytes.size(), 0), 65536);
  EXPECT_EQ(code(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096)), 0);
  EXPECT_EQ(code(::fallocate(fd.get(), FALLOC_FL_ZERO_RANGE, 0, 4096)), 0);
  EXPECT_EQ(get("f").substr(0, 8193), std::string(8192, '\0') + "x");
}

TEST_F(Lease, Row42HolesAndData) {
  const UniqueFd fd = open("f");
  ::ftruncate(fd.get(), 1 << 20);
  ASSERT_EQ(::pwrite(fd.get(), "d", 1, 1 << 19), 1);
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_DATA), 1 << 19);
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_HOLE), 0);
  EXPECT_EQ(code(::lseek(fd.get(), 2 << 20, SEEK_DATA)), ENXIO);
  EXPECT_LT(stat(fd).st_blocks, 100);
}

TEST_F(Lease, Row44To46OffsetsCopiesAndDirectIo) {
  const UniqueFd fd = open("f");
  ASSERT_EQ(::pwrite(fd.get(), "copy", 4, 5L << 30), 4);
  EXPECT_EQ(stat(fd).st_size, (5L << 30) + 4);
  const UniqueFd to = open("g");
  loff_t from = 5L << 30;
  EXPECT_EQ(::copy_file_range(fd.get(), &from, to.get(), nullptr, 4, 0), 4);
  EXPECT_EQ(get("g"), "copy");
  const UniqueFd direct = open("h", O_RDWR | O_CREAT | O_DIRECT);
  const UniqueFd buffered = open("h");
  alignas(4096) static char page[4096];
  std::fill(std::begin(page), std::end(page), 'D');
  ASSERT_EQ(::pwrite(direct.get(), page, 4096, 0), 4096);
  char text[2] = {};
  EXPECT_EQ(::pread(buffered.get(), text, 1, 0), 1);
  EXPECT_STREQ(text, "D");
  ASSERT_EQ(::pwrite(buffered.get(), "B", 1, 0), 1);
  ASSERT_EQ(::pread(direct.get(), page, 4096, 0), 4096);
  EXPECT_EQ(page[0], 'B');
}

TEST_F(Lease, Row52HardLinks) {
  put("f", "x");
  const ino_t ino = stat("f").st_ino;
  ASSERT_EQ(::link("f", "g"), 0);
  EXPECT_EQ(stat("g").st_ino, ino);
  EXPECT_EQ(stat("f").st_nlink, 2u);
  put("g", "changed");
  EXPECT_EQ(get("f"), "changed");
  ASSERT_EQ(::unlink("f"), 0);
  EXPECT_EQ(stat("g").st_nlink, 1u);
  ASSERT_EQ(::rename("g", "h"), 0);
  EXPECT_EQ(stat("h").st_ino, ino);
}

TEST_F(Lease, Row55Times) {
  put("f", "x");
  const struct timespec both[2] = {{1000000005, 11}, {1000000007, 12}};
  ASSERT_EQ(::utimensat(AT_FDCWD, "f", both, 0), 0);
  const struct timespec one[2] = {{0, UTIME_OMIT}, {3, 13}};
  ASSERT_EQ(::utimensat(AT_FDCWD, "f", one, 0), 0);
  EXPECT_EQ(stat("f").st_atim.tv_nsec, 11);
  EXPECT_EQ(stat("f").st_mtim.tv_nsec, 13);
  const struct timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
  ASSERT_EQ(::utimensat(AT_FDCWD, "f", now, 0), 0);
  EXPECT_GT(stat("f").st_atim.tv_sec, 1000000005);
  ASSERT_EQ(::symlink("nowhere", "l"), 0);
  ASSERT_EQ(::utimensat(AT_FDCWD, "l", both, AT_SYMLINK_NOFOLLOW), 0);
  EXPECT_EQ(stat("l").st_mtim.tv_nsec, 12);
}

TEST_F(Lease, Row57UmaskAndDefaultAcls) {
  EXPECT_EQ(
      shell("umask 077; : > f; mkdir d; setfacl -d -m u:12345:rwx,g::rwx d; umask 027; : > d/f; "
            "stat -c %a f; getfacl -cE d/f | grep -v '^$'",
            ".")
          .output,
      "600\nuser::rw-\nuser:12345:rwx\ngroup::rwx\nmask::rw-\nother::---\n");
}

TEST_F(Lease, Row58To60OwnersOfNewFiles) {
  ::umask(022);
  ::mkdir("s", 0755);
  ASSERT_EQ(::chown("s", 0, 4321), 0);
  ASSERT_EQ(::chmod("s", 02777), 0);
  ::mkdir("t", 0755);
  ASSERT_EQ(::chmod("t", 01777), 0);
  put("t/roots", "");
  EXPECT_EQ(asUser(kOther,
                   [] {
                     open("s/f");
                     ::mkdir("s/d", 0755);
                     open("t/f");
                     return code(::unlink("t/roots"));
                   }),
            EPERM);
  EXPECT_EQ(stat("s/f").st_uid, kOther);
  EXPECT_EQ(stat("s/f").st_gid, 4321u);
  EXPECT_EQ(stat("s/d").st_mode & 07777, 02755u);
  EXPECT_EQ(stat("t/f").st_gid, kOther);
}

TEST_F(Lease, Row62SetIdBitsGoWhenOthersWrite) {
  const auto writes = [](int flags, bool truncates) {
    return [=] {
      const UniqueFd fd = open("f", flags);
      return fd.valid() &&
                     (truncates ? ::ftruncate(fd.get(), 0) == 0 : ::write(fd.get(), "y", 1) == 1)
                 ? 0
                 : 1;
    };
  };
  const std::function<int()> ways[] = {writes(O_WRONLY, false), writes(O_WRONLY, true),
                                       writes(O_WRONLY | O_TRUNC, true),
                                       [] { return code(::truncate("f", 1)); }};
  for (const auto& way : ways) {
    put("f", "x");
    ASSERT_EQ(::chmod("f", 06777), 0);
    EXPECT_EQ(asUser(kOther, way), 0);
    EXPECT_EQ(stat("f").st_mode & 07777, 0777u);
  }
  ASSERT_EQ(::chmod("f", 06755), 0);
  ASSERT_EQ(::chown("f", 1, 1), 0);
  EXPECT_EQ(stat("f").st_mode & 07777, 0755u);
}

TEST_F(Lease, Row64ExtendedAttributes) {
  put("f", "x");
  const std::string value(3000, 'v');
  ASSERT_EQ(::setxattr("f", "user.k", value.data(), value.size(), XATTR_CREATE), 0);
  EXPECT_EQ(code(::setxattr("f", "user.k", "", 0, XATTR_CREATE)), EEXIST);
  EXPECT_EQ(code(::setxattr("f", "user.n", "", 0, XATTR_REPLACE)), ENODATA);
  char small[10];
  EXPECT_EQ(::getxattr("f", "user.k", nullptr, 0), 3000);
  EXPECT_EQ(code(::getxattr("f", "user.k", small, sizeof small)), ERANGE);
  EXPECT_EQ(code(::getxattr("f", "user.n", small, sizeof small)), ENODATA);
  EXPECT_EQ(::listxattr("f", small, sizeof small), 7);
  ASSERT_EQ(::symlink("f", "l"), 0);
  EXPECT_EQ(code(::lsetxattr("l", "trusted.k", "v", 1, 0)), 0);
  EXPECT_EQ(::lgetxattr("l", "trusted.k", small, sizeof small), 1);
  ASSERT_EQ(::setxattr("f", "trusted.k", "v", 1, 0), 0);
  EXPECT_EQ(asUser(kOther, [] { return static_cast<int>(::listxattr("f", nullptr, 0)); }), 7);
}

TEST_F(Lease, Row65AclsAreEnforced) {
  put("f", "x");
  EXPECT_EQ(shell("chmod 600 f && setfacl -m u:65534:r f && chmod g+r f", ".").status, 0);
  EXPECT_EQ(asUser(kOther, [] { return open("f", O_RDONLY).valid() ? 0 : 1; }), 0);
  EXPECT_EQ(asUser(kOther, [] { return code(open("f", O_WRONLY).get()); }), EACCES);
  ASSERT_EQ(::chmod("f", 0600), 0);
  EXPECT_EQ(asUser(kOther, [] { return code(open("f", O_RDONLY).get()); }), EACCES);
}

TEST_F(Lease, Row66AnOpenFileOutlivesItsPermissions) {
  const UniqueFd fd = open("f");
  ASSERT_EQ(::chmod("f", 0), 0);
  EXPECT_EQ(::write(fd.get(), "ok", 2), 2);
  EXPECT_EQ(code(::ftruncate(fd.get(), 1)), 0);
}

TEST_F(Lease, Row68SymbolicLinks) {
  const std::string target(4000, 't');
  ASSERT_EQ(::symlink(target.c_str(), "l"), 0);
  char text[4096];
  EXPECT_EQ(::readlink("l", text, sizeof text), 4000);
  EXPECT_EQ(stat("l").st_size, 4000);
  ASSERT_EQ(::symlink("m", "m"), 0);
  EXPECT_EQ(code(open("m", O_RDONLY).get()), ELOOP);
}

TEST_F(Lease, Row69SpecialFiles) {
  ASSERT_EQ(::mkfifo("p", 0644), 0);
  EXPECT_EQ(shell("echo through > p & cat p; wait", ".").output, "through\n");
  const UniqueFd sock(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  struct sockaddr_un address = {AF_UNIX, "s"};
  ASSERT_EQ(::bind(sock.get(), reinterpret_cast<struct sockaddr*>(&address), sizeof address), 0);
  EXPECT_TRUE(S_ISSOCK(stat("s").st_mode));
  ASSERT_EQ(::mknod("c", S_IFCHR | 0666, makedev(1, 3)), 0);
  EXPECT_EQ(stat("c").st_rdev, makedev(1, 3));
  EXPECT_EQ(code(open("c", O_RDONLY).get()), EACCES);  // kept, but not acted on: nodev
  ::chmod(".", 0777);
  EXPECT_EQ(asUser(kOther, [] { return code(::mknod("n", S_IFCHR | 0666, makedev(1, 3))); }),
            EPERM);
}

TEST_F(Lease, Row70FreeSpace) {
  struct statvfs st;
  ASSERT_EQ(::statvfs(".", &st), 0);
  EXPECT_EQ(st.f_namemax, 255u);
  EXPECT_GT(st.f_files, 0u);
  EXPECT_GT(st.f_blocks, st.f_bfree);
}

TEST_F(Lease, Row71Programs) {
  EXPECT_EQ(
      shell("printf '#!/bin/sh\necho ran' > f; chmod +x f; ./f; cp /bin/true t; ./t", ".").output,
      "ran\n");
  ASSERT_EQ(shell("cp /bin/sleep s", ".").status, 0);
  int ends[2];  // the child's end is closed by the exec
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl("./s", "s", "100", nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  char none;
  EXPECT_EQ(::read(ends[0], &none, 1), 0);
  ::close(ends[0]);
  EXPECT_FALSE(open("s", O_WRONLY).valid());
  EXPECT_EQ(errno, ETXTBSY);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

TEST_F(Lease, Row72Locks) {
  const UniqueFd a = open("f");
  const UniqueFd b = open("f");
  ASSERT_EQ(::flock(a.get(), LOCK_EX), 0);
  EXPECT_EQ(code(::flock(b.get(), LOCK_EX | LOCK_NB)), EWOULDBLOCK);
  struct flock lock = {F_WRLCK, SEEK_SET, 0, 0, 0};
  ASSERT_EQ(::fcntl(a.get(), F_SETLK, &lock), 0);
  EXPECT_EQ(asUser(0, [&] { return code(::fcntl(b.get(), F_SETLK, &lock)); }), EAGAIN);
}

TEST_F(Lease, ToolsSimplyWork) {
  const Ran ran = shell(
      "git init -q r && cd r && echo a > a && git add a && "
      "git -c user.name=n -c user.email=e commit -qm m && git status --short && cd .. && "
      "tar -C r -cf t.tar . && mkdir u && tar -C u -xf t.tar && rsync -aHAX --delete r/ u/ && diff "
      "-r r u",
      ".");
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_EQ(ran.output, "");
}

}  // namespace
}  // namespace kilnfs::testing
