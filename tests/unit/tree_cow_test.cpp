// Copy on write by directory: a workspace over a snapshot, compared with what a plain copy would
// do.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <set>
#include <thread>

#include "tests/support/tree_cow_fixture.h"

namespace kilnfs {
namespace {

using testing::entries;
using testing::readFile;
using testing::TreeCowTest;
using testing::writeFile;

TEST_F(TreeCowTest, ReadsFromTheSnapshotAndMakesNothing) {
  EXPECT_EQ(read("a/b/deep"), "deep");
  EXPECT_EQ(list("a"), (std::set<std::string>{"b", "file", "linked", "soft"}));
  EXPECT_EQ(tree_->readlink(*node("a/soft")).value(), "file");
  EXPECT_EQ(at("a/linked").attributes.st_nlink, 2U);
  EXPECT_EQ(at("a/file").attributes.st_nlink, 1U);
  EXPECT_EQ(entries(dir_ / "w"), 0U);
  EXPECT_FALSE(workspace_->changed());
}

TEST_F(TreeCowTest, AWriteMakesItsDirectoriesOwnAndNoOthers) {
  write("a/file", "two");
  EXPECT_EQ(read("a/file"), "two");
  EXPECT_EQ(readFile(dir_ / "w/a/file"), "two");
  EXPECT_EQ(entries(dir_ / "w/a/b"), 0U) << "a stub";
  EXPECT_EQ(read("a/b/deep"), "deep");
  EXPECT_EQ(read("top"), "top");
  const auto st = at("a/file").attributes;
  EXPECT_EQ(st.st_mode & 07777, 0640U);
  EXPECT_EQ(st.st_nlink, 1U);
  EXPECT_EQ(at("top").attributes.st_nlink, 1U);
  EXPECT_EQ(tree_->getxattr(*node("a/file"), "user.k").value(), "v");
}

TEST_F(TreeCowTest, InodeNumbersStay) {
  const auto file = at("a/file").attributes.st_ino;
  const auto a = at("a").attributes.st_ino;
  const auto b = at("a/b").attributes.st_ino;
  const auto c = at("a/b/c").attributes.st_ino;
  const auto root = at("").attributes.st_ino;
  write("a/file", "x");
  for (int pass = 0; pass < 2; ++pass) {
    EXPECT_EQ(at("").attributes.st_ino, root);
    EXPECT_EQ(at("a/file").attributes.st_ino, file);
    EXPECT_EQ(at("a").attributes.st_ino, a);
    EXPECT_EQ(at("a/b").attributes.st_ino, b);
    EXPECT_EQ(at("a/b/c").attributes.st_ino, c);
    write("a/b/c/deepest", "y");
  }
  ASSERT_TRUE(tree_->readDirectory(*node("a"), 0, [&](const Tree::Item& item) {
    EXPECT_TRUE(std::string(item.name) != "b" || item.ino == b);
    EXPECT_TRUE(std::string(item.name) != "file" || item.ino == file);
    return true;
  }));
}

TEST_F(TreeCowTest, AttributesAndTimesOfDirectoriesStay) {
  write("a/b/deep", "x");
  EXPECT_EQ(at("a").attributes.st_mtim.tv_sec, 2000);
  EXPECT_EQ(at("a").attributes.st_mtim.tv_nsec, 2);
  EXPECT_EQ(at("a/b").attributes.st_mtim.tv_sec, 2000) << "writing to a file changes no directory";
  ASSERT_TRUE(tree_->unlink(*node("a/b"), "deep"));
  EXPECT_NE(at("a/b").attributes.st_mtim.tv_sec, 2000);
  EXPECT_EQ(at("a/b").attributes.st_nlink, 3U);
}

TEST_F(TreeCowTest, ADescriptorOpenedBeforeTheFirstWriteSeesIt) {
  auto reader = tree_->open(*node("a/file"), O_RDONLY, true);
  ASSERT_TRUE(reader);
  EXPECT_EQ(readAll(**reader), "one");
  auto writer = tree_->open(*node("a/file"), O_RDWR, true);
  ASSERT_TRUE(writer);
  ASSERT_EQ(::pwrite((*writer)->fd(), "TWO", 3, 0), 3);
  EXPECT_EQ(readAll(**reader), "TWO");
}

// Else the kernel could be given the snapshot's file to write to.
TEST_F(TreeCowTest, ADescriptorIsTheCopysBeforeTheFileCountsAsOwn) {
  // A directory each: that it becomes own must not make its file look so.
  const auto name = [](int i) { return "many/" + std::to_string(i) + "/file"; };
  for (int i = 0; i < 200; ++i) {
    std::filesystem::create_directories(dir_ / ("s/many/" + std::to_string(i)));
    writeFile(dir_ / ("s/" + name(i)), "text");
  }
  before_ = digest(dir_ / "s");
  for (int i = 0; i < 200; ++i) {
    struct stat shared = {};
    struct stat now = {};
    ASSERT_EQ(::stat((dir_ / ("s/" + name(i))).c_str(), &shared), 0);
    const InodePtr inode = node(name(i));
    const auto reader = tree_->open(*inode, O_RDONLY, true);
    ASSERT_TRUE(reader);
    std::atomic<bool> done = false;
    std::thread writer([&] {
      EXPECT_TRUE(tree_->open(*inode, O_WRONLY, true));
      done = true;
    });
    while (!tree_->mayBypass(*inode) && !done) std::this_thread::yield();
    EXPECT_EQ(::fstat((*reader)->fd(), &now), 0);
    writer.join();
    ASSERT_NE(now.st_ino, shared.st_ino) << i;
  }
}

TEST_F(TreeCowTest, TruncatingCopiesNoMoreThanIsKept) {
  SetAttributes wanted;
  wanted.size = 2;
  auto st = tree_->setattr(*node("a/file"), wanted);
  ASSERT_TRUE(st);
  EXPECT_EQ(st->st_size, 2);
  EXPECT_EQ(read("a/file"), "on");
}

TEST_F(TreeCowTest, HardLinksInsideTheTreeStayTogether) {
  const auto before = at("a/linked").attributes;
  write("a/linked", "new");
  EXPECT_EQ(read("a/b/also"), "new") << "below a stub";
  EXPECT_EQ(at("a/b/also").attributes.st_nlink, 2U);
  EXPECT_EQ(at("a/b/also").inode, at("a/linked").inode);
  EXPECT_EQ(at("a/b/also").attributes.st_ino, before.st_ino);
  write("a/b/deep", "x");  // makes a/b own
  EXPECT_EQ(read("a/b/also"), "new");
  ASSERT_TRUE(tree_->unlink(*node("a"), "linked"));
  EXPECT_EQ(at("a/b/also").attributes.st_nlink, 1U);
  EXPECT_EQ(read("a/b/also"), "new");
  ASSERT_TRUE(tree_->link(*node("a/b/also"), *node(""), "third"));
  EXPECT_EQ(at("third").attributes.st_nlink, 2U);
  write("third", "3");
  EXPECT_EQ(read("a/b/also"), "3");
}

TEST_F(TreeCowTest, UnlinkingOneOfTwoNamesCountsWithoutCopying) {
  ASSERT_TRUE(tree_->unlink(*node("a"), "linked"));
  EXPECT_EQ(at("a/b/also").attributes.st_nlink, 1U);
  write("a/b/also", "w");
  EXPECT_EQ(read("a/b/also"), "w");
  EXPECT_EQ(at("a/b/also").attributes.st_nlink, 1U);
}

TEST_F(TreeCowTest, ANewLinkToASharedFileIsOneFile) {
  ASSERT_TRUE(tree_->link(*node("a/file"), *node("a/b"), "second"));
  EXPECT_EQ(at("a/file").attributes.st_nlink, 2U);
  EXPECT_EQ(at("a/b/second").inode, at("a/file").inode);
  write("a/b/second", "w");
  EXPECT_EQ(read("a/file"), "w");
}

TEST_F(TreeCowTest, AStubIsRenamedAsItIs) {
  const InodePtr c = node("a/b/c");
  ASSERT_TRUE(tree_->rename(*node("a"), "b", *node(""), "moved", 0));
  EXPECT_EQ(entries(dir_ / "w/moved"), 0U);
  EXPECT_EQ(read("moved/deep"), "deep");
  EXPECT_EQ(node("moved/c"), c);
  EXPECT_EQ(code(tree_->lookup(*node("a"), "b")), ENOENT);
  write("moved/c/deepest", "w");
  EXPECT_EQ(read("moved/c/deepest"), "w");
}

TEST_F(TreeCowTest, AFullStubIsNotReplacedNorRemoved) {
  EXPECT_EQ(code(tree_->rmdir(*node("a"), "b")), ENOTEMPTY);
  ASSERT_TRUE(tree_->mkdir(*node(""), "d", 0755, me_));
  EXPECT_EQ(code(tree_->rename(*node(""), "d", *node("a"), "b", 0)), ENOTEMPTY);
  EXPECT_EQ(read("a/b/deep"), "deep");
  ASSERT_TRUE(tree_->rename(*node(""), "d", *node(""), "empty", 0)) << "an empty one may be";
  ASSERT_TRUE(tree_->rmdir(*node(""), "empty"));
}

TEST_F(TreeCowTest, RemovedAndMadeAgainIsEmpty) {
  for (const char* f : {"a/b/c/deepest", "a/b/deep", "a/b/also"}) {
    const std::string path = f;
    ASSERT_TRUE(
        tree_->unlink(*node(path.substr(0, path.rfind('/'))), path.substr(path.rfind('/') + 1)));
  }
  ASSERT_TRUE(tree_->rmdir(*node("a/b"), "c"));
  ASSERT_TRUE(tree_->rmdir(*node("a"), "b"));
  ASSERT_TRUE(tree_->mkdir(*node("a"), "b", 0755, me_));
  EXPECT_TRUE(list("a/b").empty());
}

TEST_F(TreeCowTest, AnUnlinkedSharedFileIsWrittenWithoutTheSnapshot) {
  const InodePtr inode = node("a/file");
  auto reader = tree_->open(*inode, O_RDONLY, true);
  ASSERT_TRUE(tree_->unlink(*node("a"), "file"));
  EXPECT_EQ(tree_->getattr(*inode)->st_nlink, 0U);
  auto writer = tree_->open(*inode, O_RDWR, true);
  ASSERT_TRUE(writer) << writer.error().code;
  ASSERT_EQ(::pwrite((*writer)->fd(), "ZZZ", 3, 0), 3);
  EXPECT_EQ(readAll(**reader), "ZZZ");
  SetAttributes wanted;
  wanted.mode = 0600;
  ASSERT_TRUE(tree_->setattr(*inode, wanted));
  EXPECT_EQ(tree_->getattr(*inode)->st_nlink, 0U);
}

TEST_F(TreeCowTest, SoIsOneThatHasAnotherNameWhichNobodyLookedUp) {
  const InodePtr inode = node("a/linked");
  auto reader = tree_->open(*inode, O_RDONLY, true);
  ASSERT_TRUE(tree_->unlink(*node("a"), "linked"));
  SetAttributes wanted;
  wanted.mode = 0600;
  ASSERT_TRUE(tree_->setattr(*inode, wanted));
  auto writer = tree_->open(*inode, O_RDWR, true);
  ASSERT_TRUE(writer) << writer.error().code;
  ASSERT_EQ(::pwrite((*writer)->fd(), "ZZZ", 3, 0), 3);
  EXPECT_EQ(readAll(**reader), "ZZZked");
  EXPECT_EQ(read("a/b/also"), "ZZZked");
  EXPECT_EQ(node("a/b/also"), inode);
  EXPECT_EQ(tree_->getattr(*inode)->st_nlink, 1U);
}

TEST_F(TreeCowTest, ACopyThatCantBeOpenedIsNotTheSnapshotsFile) {
  const InodePtr inode = node("a/linked");
  {
    auto writer = tree_->open(*inode, O_RDWR, true);
    ASSERT_EQ(::pwrite((*writer)->fd(), "ZZZ", 3, 0), 3);
  }
  int gone = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(workspace_->beside().second)) continue;
    std::filesystem::remove(entry);
    ++gone;
  }
  ASSERT_EQ(gone, 1);
  EXPECT_EQ(code(tree_->open(*inode, O_RDWR | O_TRUNC, true)), ESTALE);
  EXPECT_EQ(code(tree_->open(*inode, O_RDONLY, true)), ESTALE);
  SetAttributes wanted;
  wanted.mode = 0600;
  EXPECT_EQ(code(tree_->setattr(*inode, wanted)), ESTALE);
}

TEST_F(TreeCowTest, AFileWithoutANameIsOpenForWritingNoLongerThanItsDescriptors) {
  auto made = tree_->createUnnamed(*node("a"), O_RDWR, 0640, me_);
  ASSERT_TRUE(made) << made.error().code;
  made->file->mayBeMapped();
  made->file.reset();
  EXPECT_TRUE(workspace_->freeze(false)) << "the inode is known still";
}

// Else as many descriptors as there were openings would be kept for it.
TEST_F(TreeCowTest, AFileThatIsMappedIsWatchedOnce) {
  const auto descriptors = [] {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  auto writer = tree_->open(*node("a/linked"), O_RDWR, true);
  ASSERT_TRUE(writer);
  const auto openAndClose = [&] { (*tree_->open(*node("a/linked"), O_RDWR, true))->mayBeMapped(); };
  openAndClose();
  const auto before = descriptors();
  for (int i = 0; i < 10; ++i) openAndClose();
  EXPECT_EQ(descriptors(), before);
  EXPECT_TRUE(workspace_->anyMapped());
  writer->reset();
  EXPECT_TRUE(workspace_->freeze(false));
}

TEST_F(TreeCowTest, AFileWhoseLastNameIsGoneGetsNoneAgain) {
  const InodePtr inode = node("a/linked");
  auto writer = tree_->open(*inode, O_RDWR, true);
  ASSERT_EQ(::pwrite((*writer)->fd(), "ZZZ", 3, 0), 3);
  ASSERT_TRUE(tree_->unlink(*node("a"), "linked"));
  ASSERT_TRUE(tree_->link(*inode, *node("a"), "again")) << "it has another name";
  ASSERT_TRUE(tree_->unlink(*node("a"), "again"));
  ASSERT_TRUE(tree_->unlink(*node("a/b"), "also"));
  EXPECT_EQ(code(tree_->link(*inode, *node("a"), "again")), ENOENT);
}

TEST_F(TreeCowTest, AFileMadeWithoutANameCanGetOne) {
  auto made = tree_->createUnnamed(*node("a/b"), O_RDWR, 0640, me_);
  ASSERT_TRUE(made) << made.error().code;
  const InodePtr inode = made->entry.inode;
  EXPECT_EQ(made->entry.attributes.st_nlink, 0U);
  ASSERT_EQ(::pwrite(made->file->fd(), "new", 3, 0), 3);
  made->file.reset();
  EXPECT_EQ(tree_->getattr(*inode)->st_size, 3) << "it is known, though it is not open";
  const auto linked = tree_->link(*inode, *node("a"), "named");
  ASSERT_TRUE(linked) << linked.error().code;
  EXPECT_EQ(linked->inode, inode);
  EXPECT_EQ(linked->attributes.st_nlink, 1U);
  EXPECT_EQ(read("a/named"), "new");
  ASSERT_TRUE(tree_->unlink(*node("a"), "named"));
  EXPECT_EQ(tree_->link(*inode, *node("a"), "again").error().code, ENOENT);
}

TEST_F(TreeCowTest, ARemovedStubIsNotFilled) {
  const InodePtr empty = node("empty");
  ASSERT_TRUE(tree_->rmdir(*node(""), "empty"));
  EXPECT_EQ(tree_->getattr(*empty)->st_nlink, 0U);
  EXPECT_EQ(code(tree_->create(*empty, "x", O_RDWR, 0644, me_)), ENOENT);
}

TEST_F(TreeCowTest, MetadataOfEverythingIsCopiedUp) {
  SetAttributes wanted;
  wanted.mode = 0711;
  ASSERT_TRUE(tree_->setattr(*node("a/b/c"), wanted));
  EXPECT_EQ(at("a/b/c").attributes.st_mode & 07777, 0711U);
  EXPECT_EQ(read("a/b/c/deepest"), "deepest");
  const struct timespec when = {77, 7};
  SetAttributes times;
  times.mtime = when;
  ASSERT_TRUE(tree_->setattr(*node("a/soft"), times));
  EXPECT_EQ(at("a/soft").attributes.st_mtim.tv_sec, 77);
  EXPECT_EQ(tree_->readlink(*node("a/soft")).value(), "file");
  ASSERT_TRUE(tree_->setxattr(*node("top"), "user.x", "y", 0));
  EXPECT_EQ(tree_->getxattr(*node("top"), "user.x").value(), "y");
}

// They are made where somebody has set a default access list since.
TEST_F(TreeCowTest, CopiesInheritNoAccessList) {
  // Version 2; owner, user 1234, group, mask and others may do all.
  const uint32_t list[] = {2,   0x70001, ~0U, 0x70002, 1234, 0x70004,
                           ~0U, 0x70010, ~0U, 0x70020, ~0U};
  const std::string inherited = "system.posix_acl_default";
  for (const std::string& at : {dir_.path(), dir_ / "w"}) {
    if (::setxattr(at.c_str(), inherited.c_str(), list, sizeof list, 0) != 0) {
      GTEST_SKIP() << "access lists: " << std::strerror(errno);
    }
  }
  write("a/file", "two");
  ASSERT_TRUE(tree_->mkdir(*node("a/b"), "new", 0755, me_));
  for (const char* path : {"a", "a/file", "a/b"}) {
    for (const std::string& name : {inherited, std::string("system.posix_acl_access")}) {
      EXPECT_EQ(code(tree_->getxattr(*node(path), name)), ENODATA) << path << " " << name;
    }
  }
  EXPECT_EQ(at("a/file").attributes.st_mode & 07777, 0640U);
}

// Whoever holds the directory open, as the kernel does, goes on from the cookie that it has.
class TreeCowListing : public TreeCowTest, public ::testing::WithParamInterface<size_t> {};
INSTANTIATE_TEST_SUITE_P(After, TreeCowListing, ::testing::Range<size_t>(1, 7));

TEST_P(TreeCowListing, GoesOnThoughTheDirectoryBecomesOwn) {
  const InodePtr dir = node("a");
  std::multiset<std::string> seen;
  off_t next = 0;
  ASSERT_TRUE(tree_->readDirectory(*dir, 0, [&](const Tree::Item& item) {
    if (seen.size() == GetParam()) return false;
    seen.insert(item.name);
    next = item.next;
    return true;
  }));
  const bool hadFile = seen.count("file") != 0;
  ASSERT_TRUE(tree_->unlink(*dir, "file"));
  ASSERT_TRUE(tree_->create(*dir, "new", O_RDWR, 0644, me_));
  ASSERT_TRUE(tree_->readDirectory(*dir, next, [&](const Tree::Item& item) {
    seen.insert(item.name);
    return true;
  }));
  EXPECT_EQ(seen.count("file"), hadFile ? 1U : 0U);
  for (const char* name : {".", "..", "b", "linked", "soft"}) {
    EXPECT_EQ(seen.count(name), 1U) << name;
  }
  EXPECT_LE(seen.count("new"), 1U);
  EXPECT_EQ(list("a"), (std::set<std::string>{"b", "linked", "new", "soft"})) << "rewound";
}

TEST_F(TreeCowTest, AListingOfWhatBecameOwnGoesOnFromEachCookie) {
  ASSERT_TRUE(tree_->create(*node("a"), "new", O_RDWR, 0644, me_));
  const InodePtr dir = node("a");
  std::multiset<std::string> seen;
  off_t at = 0;
  for (bool more = true; more;) {
    more = false;
    ASSERT_TRUE(tree_->readDirectory(*dir, at, [&](const Tree::Item& item) {
      if (more) return false;
      more = true;
      seen.insert(item.name);
      at = item.next;
      return true;
    }));
  }
  EXPECT_EQ(seen, (std::multiset<std::string>{".", "..", "b", "file", "linked", "new", "soft"}));
}

TEST_F(TreeCowTest, TheRootBelongsToWhoWorksInIt) {
  ASSERT_EQ(::chown((dir_ / "w").c_str(), 4321, 1234), 0);
  EXPECT_EQ(at("").attributes.st_uid, 4321U);
  EXPECT_EQ(at("").attributes.st_nlink, 4U);
  write("top", "x");
  EXPECT_EQ(at("").attributes.st_uid, 4321U);
}

}  // namespace
}  // namespace kilnfs
