// What ext4 does, a lease does: names, directories, and files that are open while they are removed
// or replaced. The rows are those of a list of cases that file systems get wrong.

#include <dirent.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <climits>
#include <set>
#include <vector>

#include "tests/support/lease_fixture.h"

namespace kilnfs::testing {
namespace {

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

}  // namespace
}  // namespace kilnfs::testing
