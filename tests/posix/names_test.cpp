// Rows 1 to 20: names and directories.

#include <dirent.h>
#include <sys/mman.h>

#include <climits>
#include <set>
#include <vector>

#include "tests/posix/posix_test.h"

namespace kilnfs::testing {
namespace {

std::multiset<std::string> listed(const std::string& path) {
  std::multiset<std::string> names;
  DIR* dir = ::opendir(path.c_str());
  while (const dirent* entry = ::readdir(dir)) names.insert(entry->d_name);
  ::closedir(dir);
  return names;
}

constexpr const char* kOneLink =
    "1 link for each directory that was changed or removed: an overlay doesn't count them";

void makeFiles(int count) {
  ::mkdir("d", 0755);
  for (int i = 0; i < count; ++i) open("d/f" + std::to_string(1000000 + i));
}

}  // namespace

ROW(Row01_NamesOf255Bytes) {
  EXPECT_TRUE(open(std::string(255, 'n')).valid());
  EXPECT_EQ(code(::mkdir(std::string(255, 'd').c_str(), 0755)), 0);
  EXPECT_EQ(failure(open(std::string(256, 'n'))), ENAMETOOLONG);
  EXPECT_EQ(code(::mkdir(std::string(256, 'd').c_str(), 0755)), ENAMETOOLONG);
  EXPECT_EQ(code(::rename(std::string(255, 'n').c_str(), std::string(256, 'm').c_str())),
            ENAMETOOLONG);
  EXPECT_EQ(code(::access(std::string(256, 'n').c_str(), F_OK)), ENAMETOOLONG);
  EXPECT_EQ(code(::unlink(std::string(256, 'n').c_str())), ENAMETOOLONG);
}

ROW_ON(Row02_NamesAreBytes, [] {
  for (const char* name : {"new\nline", "\xff\xfe", "-rf", ".wh.x"}) put(name, name);
}) {
  for (const char* name : {"caf\u00e9", "cafe\u0301", "A", "a"}) put(name, name);
  const std::multiset<std::string> names = {".",     "..",        "new\nline",  "\xff\xfe", "-rf",
                                            ".wh.x", "caf\u00e9", "cafe\u0301", "A",        "a"};
  EXPECT_EQ(listed("."), names);
  for (const auto& name : names) {
    if (name[0] != '.' || name == ".wh.x") {
      EXPECT_EQ(get(name), name);
    }
  }
}

ROW_ON(Row03_ParentOfAMovedDirectory, [] {
  for (const char* name : {"a", "a/d", "b"}) ::mkdir(name, 0755);
  put("b/mark", "b");
}) {
  const UniqueFd dir = open("a/d", O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::rename("a/d", "b/d"), 0);
  struct stat parent = {};
  ASSERT_EQ(::fstatat(dir.get(), "..", &parent, 0), 0);
  EXPECT_EQ(parent.st_ino, statOf("b").st_ino);
  EXPECT_EQ(code(::faccessat(dir.get(), "../mark", F_OK, 0)), 0);
  ASSERT_EQ(::fchdir(dir.get()), 0);
  EXPECT_EQ(get("../mark"), "b");
  ASSERT_EQ(::chdir("../.."), 0);
}

ROW_ON(Row04_DotIsTheDirectoryItself, [] { ::mkdir("d", 0755); }) {
  const UniqueFd dir = open("d", O_RDONLY | O_DIRECTORY);
  struct stat dot = {};
  ASSERT_EQ(::fstatat(dir.get(), ".", &dot, 0), 0);
  EXPECT_EQ(dot.st_ino, statOf("d").st_ino);
  EXPECT_EQ(statOf("d/.").st_ino, dot.st_ino);
  EXPECT_EQ(statOf("d/../d").st_ino, dot.st_ino);
}

ROW_ON(Row05_WorkingDirectoryFollowsItsName, [] { ::mkdir("d", 0755); }) {
  ASSERT_EQ(::chdir("d"), 0);
  ASSERT_EQ(::rename("../d", "../e"), 0);
  EXPECT_EQ(std::filesystem::current_path().filename(), "e");
  ASSERT_EQ(::rmdir("../e"), 0);
  char path[PATH_MAX];
  EXPECT_EQ(::getcwd(path, sizeof path), nullptr);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(failure(open("f")), ENOENT);
  EXPECT_EQ(code(::mkdir("x", 0755)), ENOENT);
  if (onOverlay()) instead(kOneLink);
  EXPECT_EQ(statOf(".").st_nlink, onOverlay() ? 1u : 0u);
}

ROW_ON(Row06_DirectoryOfAnUnlinkedOpenFile, [] {
  ::mkdir("d", 0755);
  put("d/f", "still there");
}) {
  const UniqueFd fd = open("d/f", O_RDWR);
  ::unlink("d/f");
  EXPECT_EQ(listed("d"), (std::multiset<std::string>{".", ".."}));
  EXPECT_EQ(code(::rmdir("d")), 0);
  EXPECT_EQ(::write(fd.get(), "S", 1), 1);
}

ROW_ON(Row07_ListingWhileEntriesAreRemoved, [] { makeFiles(2000); }) {
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

ROW_ON(Row08_ListingWhileEntriesAreCreated, [] { makeFiles(1000); }) {
  std::multiset<std::string> old;
  int made = 0;
  DIR* dir = ::opendir("d");
  while (const dirent* entry = ::readdir(dir)) {
    if (entry->d_name[0] != 'f') continue;
    old.insert(entry->d_name);
    ASSERT_LT(made, 1000000) << "an endless loop";
    if (made < 3000) open("d/g" + std::to_string(made++));
  }
  ::closedir(dir);
  EXPECT_EQ(old.size(), 1000u);
  EXPECT_EQ(std::set<std::string>(old.begin(), old.end()).size(), 1000u);
  EXPECT_EQ(listed("d").size(), 3000u - (3000u - static_cast<unsigned>(made)) + 1002u);
}

ROW_ON(Row09_Telldir, [] { makeFiles(300); }) {
  DIR* dir = ::opendir("d");
  for (int i = 0; i < 100; ++i) ::readdir(dir);
  const long at = ::telldir(dir);
  const std::string next = ::readdir(dir)->d_name;
  while (::readdir(dir) != nullptr) {
  }
  ::seekdir(dir, at);
  EXPECT_EQ(::readdir(dir)->d_name, next);
  put("d/later", "");
  ::rewinddir(dir);
  bool found = false;
  while (const dirent* entry = ::readdir(dir)) found |= std::string(entry->d_name) == "later";
  EXPECT_TRUE(found);
  ::closedir(dir);
}

namespace {

void listingAndStatAgree() {
  DIR* dir = ::opendir(".");
  size_t count = 0;
  while (const dirent* entry = ::readdir(dir)) {
    ++count;
    const std::string name = entry->d_name;
    // Of a mount's root ".." is on another file system.
    if (name == "..") continue;
    EXPECT_EQ(IFTODT(statOf(name).st_mode), entry->d_type) << name;
    EXPECT_EQ(statOf(name).st_ino, entry->d_ino) << name;
  }
  ::closedir(dir);
  EXPECT_EQ(count, 6u);
}

void someOfEach() {
  put("f", "");
  ::mkdir("d", 0755);
  ::symlink("f", "l");
  ::mkfifo("p", 0644);
}

}  // namespace

ROW_ON(Row10_ListingAndStatAgree, someOfEach) {
  listingAndStatAgree();
  const UniqueFd changesTheDirectory = open("new");
  ::unlink("new");
  listingAndStatAgree();
}
RESULT_ROW_ON(Row10_ListingAndStatAgree, someOfEach) {
  listingAndStatAgree();
}

ROW_ON(Row11_ListingsWithAndWithoutAttributesAgree, [] { makeFiles(500); }) {
  // Stat of what was listed makes the kernel ask for both at once; without, it does not.
  const auto numbers = [](bool stats) {
    std::set<std::pair<std::string, ino_t>> found;
    DIR* dir = ::opendir("d");
    while (const dirent* entry = ::readdir(dir)) {
      if (stats && std::string(entry->d_name) != "..") {
        EXPECT_EQ(statOf("d/" + std::string(entry->d_name)).st_ino, entry->d_ino);
      }
      found.emplace(entry->d_name, entry->d_ino);
    }
    ::closedir(dir);
    return found;
  };
  EXPECT_EQ(numbers(false), numbers(true));
  EXPECT_EQ(numbers(true), numbers(false));
}

ROW_ON(Row12_LinksOfDirectories, [] {
  for (const char* name : {"d", "d/a", "d/b", "e"}) ::mkdir(name, 0755);
}) {
  // btrfs counts none: 1 for every directory is as right.
  if (statOf("d").st_nlink == 1) return;
  EXPECT_EQ(statOf("d").st_nlink, 4u);
  if (onOverlay()) instead(kOneLink);
  const auto links = [](nlink_t right) { return onOverlay() ? 1 : right; };
  ::mkdir("d/c", 0755);
  EXPECT_EQ(statOf("d").st_nlink, links(5));
  ::rmdir("d/a");
  EXPECT_EQ(statOf("d").st_nlink, links(4));
  ::rename("d/b", "e/b");
  EXPECT_EQ(statOf("d").st_nlink, links(3));
  EXPECT_EQ(statOf("e").st_nlink, links(3));
  EXPECT_EQ(statOf("e/b").st_nlink, links(2));
}

ROW_ON(Row13_RenamesThatCannotBe, [] {
  for (const char* name : {"d", "d/e", "g"}) ::mkdir(name, 0755);
  put("f", "");
}) {
  EXPECT_EQ(code(::rename("d", "d/e/x")), EINVAL);
  EXPECT_EQ(code(::rename("d/e", "d")), ENOTEMPTY);  // the kernel's, whatever the file system
  const int full = code(::rename("g", "d"));
  EXPECT_TRUE(full == ENOTEMPTY || full == EEXIST) << full;  // XFS says the latter
  EXPECT_EQ(code(::rename("f", "g")), EISDIR);
  EXPECT_EQ(code(::rename("g", "f")), ENOTDIR);
  EXPECT_EQ(code(::rename("none", "f")), ENOENT);
  EXPECT_EQ(code(::rename("f/x", "g")), ENOTDIR);
  EXPECT_EQ(code(::rename("g", "d/e")), 0);
}

ROW_ON(Row14_DirectoriesOfTheSnapshotCanBeRenamed, [] {
  for (const char* name : {"d", "d/e", "x"}) ::mkdir(name, 0755);
  put("d/e/f", "deep");
  ASSERT_EQ(::link("d/e/f", "d/hard"), 0);
}) {
  const ino_t ino = statOf("d").st_ino;
  ASSERT_EQ(code(::rename("d", "x/y")), 0);
  EXPECT_EQ(statOf("x/y").st_ino, ino);
  EXPECT_EQ(get("x/y/e/f"), "deep");
  EXPECT_EQ(code(::rename("x/y/e", "e")), 0);
  EXPECT_EQ(get("e/f"), "deep");
  EXPECT_EQ(statOf("e/f").st_ino, statOf("x/y/hard").st_ino);
  EXPECT_EQ(statOf("e/f").st_nlink, 2u);
  put("e/f", "changed");
  EXPECT_EQ(get("x/y/hard"), "changed");
}

LEASE_ROW_ON(Row15_NothingMovesBetweenTrees, [] { put("f", "x"); }) {
  Site& site = Site::get();
  const std::string other = site.lease(site.fresh("other"));
  const std::string there = site.mnt("leases/" + other + "/f");
  for (const std::string& to : {there, site.mnt("results/f"), site.mnt("f")}) {
    EXPECT_EQ(code(::rename("f", to.c_str())), EXDEV) << to;
    EXPECT_EQ(code(::link("f", to.c_str())), EXDEV) << to;
  }
  put(there, "y");
  EXPECT_EQ(code(::rename(there.c_str(), "g")), EXDEV);
  EXPECT_EQ(code(::link(there.c_str(), "g")), EXDEV);
  EXPECT_TRUE(site.release(other, " --discard").ok);
}

ROW_ON(Row16_RenameFlags, [] {
  put("a", "a");
  put("b", "b");
  for (const char* name : {"d", "d/e"}) ::mkdir(name, 0755);
}) {
  const auto rename = [](const char* from, const char* to, unsigned flags) {
    return code(::renameat2(AT_FDCWD, from, AT_FDCWD, to, flags));
  };
  EXPECT_EQ(rename("a", "b", RENAME_NOREPLACE), EEXIST);
  EXPECT_EQ(rename("a", "c", RENAME_EXCHANGE), ENOENT);
  EXPECT_EQ(rename("a", "b", RENAME_EXCHANGE), 0);
  EXPECT_EQ(get("a") + get("b"), "ba");
  EXPECT_EQ(rename("a", "d", RENAME_EXCHANGE), 0);
  EXPECT_EQ(get("d"), "b");
  EXPECT_EQ(code(::access("a/e", F_OK)), 0);
  EXPECT_EQ(rename("a", "c", RENAME_NOREPLACE), 0);
  EXPECT_EQ(rename("c", "c/e/x", RENAME_EXCHANGE), ENOENT);
  EXPECT_EQ(rename("b", "w", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
  if (!onNative()) {
    instead("EINVAL to RENAME_WHITEOUT: white-outs are an overlay's, a tree has none");
    EXPECT_EQ(rename("b", "w", RENAME_WHITEOUT), EINVAL);
  }
}

ROW_ON(Row17_RenameOfTwoLinksToOneFile, [] {
  put("a", "x");
  ASSERT_EQ(::link("a", "b"), 0);
}) {
  EXPECT_EQ(code(::rename("a", "b")), 0);
  EXPECT_EQ(get("a") + get("b"), "xx");
  EXPECT_EQ(statOf("a").st_nlink, 2u);
}

ROW_ON(Row18_WhatWasRemovedStaysRemoved, [] {
  for (const char* name : {"d", "d/e", "n", "n/e"}) ::mkdir(name, 0755);
  put("d/e/f", "x");
  put("d/g", "x");
}) {
  EXPECT_EQ(shell("rm -r d; mkdir d; ls -A d; rmdir d; mv n d; ls -A d d/e; mkdir n; ls -A n", ".")
                .output,
            "d:\ne\n\nd/e:\n");
}

ROW_ON(Row19_ModesThatForbidWhatFollows, [] { ::mkdir("old", 0555); }) {
  ::chmod(".", 0777);
  EXPECT_EQ(asUser(kOther,
                   [] {
                     const UniqueFd none = open("none", O_WRONLY | O_CREAT, 0);
                     const UniqueFd readable = open("readable", O_RDWR | O_CREAT, 0444);
                     if (::write(none.get(), "x", 1) != 1) return 1;
                     if (::write(readable.get(), "x", 1) != 1) return 2;
                     if (::mkdir("d", 0555) != 0) return 3;
                     return failure(open("d/f"));
                   }),
            EACCES);
  EXPECT_EQ(statOf("none").st_mode & 07777, 0u);
  EXPECT_EQ(statOf("d").st_mode & 07777, 0555u);
  put("old/f", "x");  // root may
  EXPECT_EQ(statOf("old").st_mode & 07777, 0555u);
}

ROW(Row20_VeryLongPaths) {
  const UniqueFd top = open(".", O_RDONLY | O_DIRECTORY);
  const std::string name(200, 'd');
  for (int i = 0; i < 40; ++i) {
    ASSERT_EQ(::mkdir(name.c_str(), 0755), 0);
    ASSERT_EQ(::chdir(name.c_str()), 0);
  }
  put("f", "deep");
  EXPECT_EQ(get("f"), "deep");
  ASSERT_EQ(::fchdir(top.get()), 0);
  EXPECT_EQ(shell("rm -r ddd*", ".").status, 0);
}

ROW_ON(Row20_ManyEntries, [] { makeFiles(20000); }) {
  EXPECT_EQ(listed("d").size(), 20002u);
  open("d/one-more");
  EXPECT_EQ(listed("d").size(), 20003u);
  EXPECT_EQ(shell("rm -r d", ".").status, 0);
}

}  // namespace kilnfs::testing
