#include "store/tree/tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "store/tree/trees.h"

namespace kilnfs {
namespace {

namespace fs = std::filesystem;

class TreeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char scratch[] = "/tmp/kilnfs-tree-XXXXXX";
    ASSERT_NE(::mkdtemp(scratch), nullptr);
    area_ = scratch;
    areaFd_.reset(::open(scratch, O_PATH | O_DIRECTORY | O_CLOEXEC));
    fs::create_directory(area_ / "w");
    workspace_ = std::make_shared<Workspace>(areaFd_.get(), area_, "w", "leases/w.1");
    tree_ = Tree::create(workspace_, 7);
  }
  void TearDown() override { fs::remove_all(area_); }

  InodePtr root() { return tree_->root().value().inode; }
  Tree::Created make(const InodePtr& parent, const std::string& name, int flags = O_RDWR) {
    return std::move(tree_->create(*parent, name, flags, 0644, me_).value());
  }
  std::shared_ptr<Tree> snapshot(const std::string& name) {
    return Tree::create(std::make_shared<Snapshot>(areaFd_.get(), area_, name, "results/" + name),
                        9);
  }
  static int code(const auto& result) { return result ? 0 : result.error().code; }

  fs::path area_;
  UniqueFd areaFd_;
  std::shared_ptr<Workspace> workspace_;
  std::shared_ptr<Tree> tree_;
  const Creator me_{::geteuid(), ::getegid(), 022};
};

TEST_F(TreeTest, DirectoriesThatNobodyUsesAreClosed) {
  DirectoryCache cache(4);
  const InodePtr directory = root();
  const auto open = [&] {
    cache.put(*directory, std::make_shared<OpenDirectory>(
                              UniqueFd(::open(area_.c_str(), O_RDONLY | O_CLOEXEC)), true));
  };
  open();
  cache.closeUnused();
  EXPECT_TRUE(cache.find(*directory)) << "used since the last time";
  cache.closeUnused();
  EXPECT_EQ(cache.size(), 1U);
  cache.closeUnused();
  EXPECT_EQ(cache.size(), 0U);
  EXPECT_FALSE(cache.find(*directory));
  open();
  EXPECT_TRUE(cache.find(*directory));
}

TEST_F(TreeTest, WhatIsMadeIsFoundAndCounted) {
  auto made = make(root(), "f");
  EXPECT_EQ(workspace_->writers(), 1);
  const auto found = tree_->lookup(*root(), "f");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->inode, made.entry.inode);
  EXPECT_EQ(found->attributes.st_ino, made.entry.attributes.st_ino);
  made.file.reset();
  EXPECT_EQ(workspace_->opens(), 0);
  EXPECT_TRUE(workspace_->changed());
  EXPECT_EQ(code(tree_->lookup(*root(), "g")), ENOENT);
  EXPECT_EQ(code(tree_->lookup(*root(), "..")), EINVAL);
  EXPECT_EQ(code(tree_->lookup(*root(), "a/b")), EINVAL);
  EXPECT_EQ(code(tree_->lookup(*made.entry.inode, "x")), ENOTDIR);
  EXPECT_EQ(code(tree_->lookup(*root(), std::string(256, 'x'))), ENAMETOOLONG);
}

TEST_F(TreeTest, AFileThatWasMadeHereHasCapabilitiesOnceItWasGivenThem) {
  const std::string name = "security.capability";
  const std::string value("\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);  // CAP_NET_BIND_SERVICE
  const Tree::Created made = make(root(), "file");
  EXPECT_EQ(code(tree_->getxattr(*made.entry.inode, name)), ENODATA);
  const bool allowed = ::geteuid() == 0;
  EXPECT_EQ(code(tree_->setxattr(*made.entry.inode, name, value, 0)), allowed ? 0 : EPERM);
  if (allowed) {
    EXPECT_EQ(tree_->getxattr(*made.entry.inode, name).value_or(""), value);
    EXPECT_TRUE(tree_->removexattr(*made.entry.inode, name));
  }
  EXPECT_EQ(code(tree_->getxattr(*made.entry.inode, name)), ENODATA);
}

TEST_F(TreeTest, AnUnlinkedFileLivesOnInItsInode) {
  auto made = make(root(), "f");
  Inode& inode = *made.entry.inode;
  ASSERT_EQ(::pwrite(made.file->fd(), "abc", 3, 0), 3);
  ASSERT_TRUE(tree_->unlink(*root(), "f"));
  auto st = tree_->getattr(inode);
  ASSERT_TRUE(st);
  EXPECT_EQ(st->st_nlink, 0u);
  EXPECT_EQ(st->st_size, 3);
  EXPECT_EQ(st->st_ino, made.entry.attributes.st_ino);
  SetAttributes wanted;
  wanted.size = 1;
  wanted.mode = 0600;
  wanted.mtime = timespec{12, 345};
  st = tree_->setattr(inode, wanted);
  ASSERT_TRUE(st);
  EXPECT_EQ(st->st_size, 1);
  EXPECT_EQ(st->st_mode & 07777, 0600u);
  EXPECT_EQ(st->st_mtim.tv_nsec, 345);
  EXPECT_TRUE(tree_->setxattr(inode, "user.a", "b", 0));
  EXPECT_EQ(tree_->getxattr(inode, "user.a").value(), "b");
  EXPECT_EQ(code(tree_->link(inode, *root(), "again")), ENOENT);
  auto again = tree_->open(inode, O_RDONLY, false);
  ASSERT_TRUE(again);
  char c = 0;
  EXPECT_EQ(::pread((*again)->fd(), &c, 1, 0), 1);
  EXPECT_EQ(c, 'a');
}

TEST_F(TreeTest, ANameTakenByAnotherFileIsNotMistakenForTheOld) {
  auto old = make(root(), "f");
  make(root(), "g");
  ASSERT_TRUE(tree_->rename(*root(), "g", *root(), "f", 0));
  EXPECT_EQ(tree_->getattr(*old.entry.inode)->st_nlink, 0u);
  EXPECT_NE(tree_->lookup(*root(), "f")->inode, old.entry.inode);
}

TEST_F(TreeTest, HardLinksAreOneInode) {
  const auto made = make(root(), "a");
  const auto linked = tree_->link(*made.entry.inode, *root(), "b");
  ASSERT_TRUE(linked);
  EXPECT_EQ(linked->inode, made.entry.inode);
  EXPECT_EQ(linked->attributes.st_nlink, 2u);
  ASSERT_TRUE(tree_->rename(*root(), "a", *root(), "b", 0));  // two links to one file: a no-op
  EXPECT_TRUE(tree_->lookup(*root(), "a"));
  ASSERT_TRUE(tree_->unlink(*root(), "a"));
  EXPECT_EQ(tree_->getattr(*made.entry.inode)->st_nlink, 1u);
  ASSERT_TRUE(tree_->rename(*root(), "b", *root(), "c", 0));
  EXPECT_EQ(tree_->getattr(*made.entry.inode)->st_nlink, 1u);
  ASSERT_TRUE(tree_->unlink(*root(), "c"));
  EXPECT_EQ(tree_->getattr(*made.entry.inode)->st_nlink, 0u);
}

TEST_F(TreeTest, WhatIsBelowAMovedDirectoryMovesWithIt) {
  const auto a = tree_->mkdir(*root(), "a", 0755, me_);
  const auto b = tree_->mkdir(*root(), "b", 0755, me_);
  const auto f = make(a->inode, "f");
  ASSERT_TRUE(tree_->rename(*root(), "a", *b->inode, "z", 0));
  EXPECT_TRUE(tree_->getattr(*f.entry.inode));
  EXPECT_EQ(tree_->parentIno(*a->inode), b->attributes.st_ino);
  EXPECT_EQ(code(tree_->rename(*root(), "b", *a->inode, "loop", 0)), EINVAL);
  ASSERT_TRUE(tree_->rename(*b->inode, "z", *root(), "y", RENAME_NOREPLACE));
  EXPECT_EQ(code(tree_->rename(*root(), "y", *root(), "b", RENAME_NOREPLACE)), EEXIST);
  ASSERT_TRUE(tree_->rename(*root(), "y", *root(), "b", RENAME_EXCHANGE));
  EXPECT_EQ(tree_->lookup(*root(), "b")->inode, a->inode);
  EXPECT_TRUE(tree_->getattr(*b->inode));
  EXPECT_EQ(code(tree_->rename(*root(), "y", *root(), "b", RENAME_WHITEOUT)), EINVAL);
}

TEST_F(TreeTest, ARemovedDirectoryHoldsNothingNew) {
  const auto d = tree_->mkdir(*root(), "d", 0755, me_);
  ASSERT_TRUE(tree_->rmdir(*root(), "d"));
  EXPECT_EQ(code(tree_->mkdir(*d->inode, "x", 0755, me_)), ENOENT);
  EXPECT_TRUE(tree_->getattr(*d->inode));
  ASSERT_TRUE(tree_->mkdir(*root(), "d", 0755, me_));
  EXPECT_NE(tree_->lookup(*root(), "d")->inode, d->inode);
}

TEST_F(TreeTest, SymbolicLinksAreNeverFollowed) {
  ASSERT_TRUE(tree_->symlink(*root(), "l", "/etc/passwd", me_));
  const auto link = tree_->lookup(*root(), "l");
  EXPECT_EQ(tree_->readlink(*link->inode).value(), "/etc/passwd");
  SetAttributes wanted;
  wanted.mtime = timespec{1, 2};
  EXPECT_EQ(tree_->setattr(*link->inode, wanted)->st_mtim.tv_nsec, 2);
  EXPECT_EQ(tree_->link(*link->inode, *root(), "l2")->inode, link->inode);
  EXPECT_EQ(code(tree_->open(*link->inode, O_RDONLY, false)), EINVAL);
  // A directory that becomes a link behind our back is not followed either.
  const auto d = tree_->mkdir(*root(), "d", 0755, me_);
  fs::remove(area_ / "w/d");
  fs::create_directory_symlink("/etc", area_ / "w/d");
  EXPECT_NE(code(tree_->lookup(*d->inode, "passwd")), 0);
}

TEST_F(TreeTest, SnapshotsRefuseEveryChange) {
  fs::create_directory(area_ / "s");
  std::ofstream(area_ / "s/f") << "x";
  const auto tree = snapshot("s");
  const InodePtr top = tree->root()->inode;
  const InodePtr f = tree->lookup(*top, "f")->inode;
  SetAttributes wanted;
  wanted.mode = 0;
  EXPECT_EQ(code(tree->setattr(*f, wanted)), EROFS);
  EXPECT_EQ(code(tree->open(*f, O_WRONLY, true)), EROFS);
  EXPECT_EQ(code(tree->open(*f, O_RDONLY | O_TRUNC, true)), EROFS);
  EXPECT_EQ(code(tree->create(*top, "g", O_RDWR, 0644, me_)), EROFS);
  EXPECT_EQ(code(tree->mkdir(*top, "g", 0755, me_)), EROFS);
  EXPECT_EQ(code(tree->unlink(*top, "f")), EROFS);
  EXPECT_EQ(code(tree->rename(*top, "f", *top, "g", 0)), EROFS);
  EXPECT_EQ(code(tree->link(*f, *top, "g")), EROFS);
  EXPECT_EQ(code(tree->setxattr(*f, "user.a", "b", 0)), EROFS);
  EXPECT_TRUE(tree->open(*f, O_RDONLY, true));
}

TEST_F(TreeTest, AFrozenWorkspaceIsStaleButOpenFilesReadOn) {
  auto made = make(root(), "f");
  const InodePtr top = root();
  ASSERT_TRUE(workspace_->freeze(true));
  EXPECT_EQ(code(tree_->lookup(*top, "f")), ESTALE);
  EXPECT_EQ(code(tree_->create(*top, "g", O_RDWR, 0644, me_)), ESTALE);
  EXPECT_EQ(code(tree_->open(*made.entry.inode, O_RDONLY, true)), ESTALE);
  EXPECT_EQ(code(made.file->append("x", 1)), ESTALE);
  EXPECT_TRUE(tree_->getattr(*made.entry.inode, made.file.get()));
}

// What has become a result stays as it is, whoever has it open for writing still.
TEST_F(TreeTest, AFrozenWorkspacesFilesKeepTheirSetIdBits) {
  auto made = make(root(), "f");
  const File& file = *made.file;
  const auto mode = [&] { return tree_->getattr(*made.entry.inode, &file)->st_mode & 07777; };
  ASSERT_EQ(::fchmod(file.fd(), 04755), 0);
  EXPECT_TRUE(made.file->allocate(0, 0, 1, SetId::kept));
  EXPECT_EQ(mode(), 04755U);
  EXPECT_TRUE(made.file->allocate(0, 0, 1, SetId::dropped));
  EXPECT_EQ(mode(), 0755U);
  ASSERT_EQ(::fchmod(file.fd(), 04755), 0);
  ASSERT_TRUE(workspace_->freeze(true));
  EXPECT_EQ(code(made.file->allocate(0, 0, 1, SetId::dropped)), ESTALE);
  EXPECT_EQ(code(made.file->append("x", 1, SetId::dropped)), ESTALE);
  EXPECT_EQ(code(made.file->copyFrom(file, 0, 0, 1, SetId::dropped)), ESTALE);
  EXPECT_EQ(mode(), 04755U);
}

TEST_F(TreeTest, InodeNumbersDifferBetweenTreesAndListingsAgree) {
  fs::create_directory(area_ / "s");
  std::ofstream(area_ / "s/f") << "x";
  fs::create_directory(area_ / "t");
  fs::create_hard_link(area_ / "s/f", area_ / "t/f");
  const auto s = snapshot("s");
  const auto t = snapshot("t");
  const auto a = s->lookup(*s->root()->inode, "f");
  const auto b = t->lookup(*t->root()->inode, "f");
  EXPECT_NE(a->attributes.st_ino, b->attributes.st_ino);
  EXPECT_EQ(a->attributes.st_nlink, 1u);  // the other link is not of this tree
  std::map<std::string, uint64_t> listed;
  ASSERT_TRUE(s->readDirectory(*s->root()->inode, 0, [&](const Tree::Item& item) {
    listed[item.name] = item.ino;
    return true;
  }));
  EXPECT_EQ(listed["f"], a->attributes.st_ino);
  EXPECT_EQ(listed["."], s->root()->attributes.st_ino);
  EXPECT_EQ(listed[".."], 9u);
}

TEST_F(TreeTest, LinksInsideASharingSnapshotAreCounted) {
  fs::create_directories(area_ / "s/d");
  std::ofstream(area_ / "s/f") << "x";
  fs::create_hard_link(area_ / "s/f", area_ / "s/d/g");
  fs::create_hard_link(area_ / "s/f", area_ / "outside");
  const auto s = snapshot("s");
  EXPECT_EQ(s->lookup(*s->root()->inode, "f")->attributes.st_nlink, 2u);
}

TEST_F(TreeTest, ListingGoesOnFromACookieWhileEntriesAreRemoved) {
  const InodePtr top = root();
  for (int i = 0; i < 500; ++i) make(top, fmt::format("f{}", i));
  std::multiset<std::string> seen;
  off_t at = 0;
  for (bool more = true; more;) {
    more = false;
    int taken = 0;
    std::vector<std::string> batch;
    ASSERT_TRUE(tree_->readDirectory(*top, at, [&](const Tree::Item& item) {
      if (taken == 7) return false;
      ++taken;
      more = true;
      batch.emplace_back(item.name);
      at = item.next;
      return true;
    }));
    for (const auto& name : batch) {
      seen.insert(name);
      if (name[0] == 'f') {
        ASSERT_TRUE(tree_->unlink(*top, name));
      }
    }
  }
  EXPECT_EQ(seen.size(), 502u);
}

TEST_F(TreeTest, PathsMayBeLongerThanTheKernelTakes) {
  InodePtr at = root();
  for (int i = 0; i < 60; ++i) {
    at = tree_->mkdir(*at, std::string(100, 'd'), 0755, me_)->inode;
  }
  EXPECT_TRUE(tree_->getattr(*at));
  const auto made = make(at, "f");
  EXPECT_TRUE(tree_->getattr(*made.entry.inode));
}

TEST_F(TreeTest, InodesThatNobodyHasAreForgotten) {
  {
    const auto d = tree_->mkdir(*root(), "d", 0755, me_);
    const auto f = make(d->inode, "f");
    EXPECT_EQ(tree_->knownInodes(), 3u);
  }
  EXPECT_EQ(tree_->knownInodes(), 0u);
}

TEST_F(TreeTest, TruncatingOpenDropsSetIdBitsForTheUnprivileged) {
  const auto made = make(root(), "f");
  SetAttributes wanted;
  wanted.mode = 06755;
  ASSERT_TRUE(tree_->setattr(*made.entry.inode, wanted));
  ASSERT_TRUE(tree_->open(*made.entry.inode, O_WRONLY | O_TRUNC, true));
  EXPECT_EQ(tree_->getattr(*made.entry.inode)->st_mode & 07777, 06755u);
  ASSERT_TRUE(tree_->open(*made.entry.inode, O_WRONLY | O_TRUNC, false));
  EXPECT_EQ(tree_->getattr(*made.entry.inode)->st_mode & 07777, 0755u);
}

TEST_F(TreeTest, NewFilesBelongToTheirCreatorWithItsUmask) {
  if (::geteuid() != 0) GTEST_SKIP() << "declared: needs root: only root may make files for others";
  SetAttributes wanted;
  wanted.mode = 0700;  // the creator could not get in by itself: the kernel has checked
  ASSERT_TRUE(tree_->setattr(*root(), wanted));
  std::thread([this] {  // a thread of its own: acting for others changes its attributes
    const Creator other{1234, 2345, 027};
    const auto made = tree_->create(*root(), "f", O_RDWR, 0666, other);
    ASSERT_TRUE(made);
    EXPECT_EQ(made->entry.attributes.st_uid, 1234u);
    EXPECT_EQ(made->entry.attributes.st_gid, 2345u);
    EXPECT_EQ(made->entry.attributes.st_mode & 07777, 0640u);
    EXPECT_TRUE(tree_->mknod(*root(), "null", S_IFCHR | 0666, makedev(1, 3), other));
    EXPECT_TRUE(tree_->mknod(*root(), "fifo", S_IFIFO | 0666, 0, other));
  })
      .join();
  EXPECT_TRUE(tree_->unlink(*root(), "null"));
}

TEST_F(TreeTest, AppendsGoToTheEndWhereverThatIs) {
  auto a = make(root(), "f");
  auto b = tree_->open(*a.entry.inode, O_WRONLY | O_APPEND, true);
  ASSERT_TRUE(a.file->append("one", 3));
  ASSERT_TRUE((*b)->append("two", 3));
  EXPECT_EQ(tree_->getattr(*a.entry.inode)->st_size, 6);
}

TEST_F(TreeTest, DataThatIsLostIsNotedInTheWorkspace) {
  auto made = make(root(), "f");
  EXPECT_EQ(code(made.file->write([](int) -> Expected<size_t> { return fail(EAGAIN); })), EAGAIN);
  EXPECT_EQ(workspace_->writeError(), 0);
  EXPECT_EQ(code(made.file->write([](int) -> Expected<size_t> { return fail(ENOSPC); })), ENOSPC);
  EXPECT_EQ(workspace_->writeError(), ENOSPC);
}

TEST_F(TreeTest, LookupsAndRenamesAtOnceNeverLoseAFile) {
  const InodePtr top = root();
  const auto d = tree_->mkdir(*top, "d", 0755, me_);
  const auto f = make(d->inode, "f");
  std::atomic<bool> stop{false};
  std::thread mover([&] {
    for (int i = 0; i < 300; ++i) {
      ASSERT_TRUE(tree_->rename(*top, "d", *top, "e", 0));
      ASSERT_TRUE(tree_->rename(*top, "e", *top, "d", 0));
    }
    stop = true;
  });
  while (!stop) ASSERT_TRUE(tree_->getattr(*f.entry.inode));
  mover.join();
}

TEST(TreesTest, OneTreeForOneRootWhileItLives) {
  Trees trees;
  auto workspace = std::make_shared<Workspace>(AT_FDCWD, "/tmp", "x", "builds/x");
  auto tree = trees.get(workspace, 1);
  EXPECT_EQ(trees.get(workspace, 1), tree);
  const std::weak_ptr<Tree> gone = tree;
  tree.reset();
  EXPECT_TRUE(gone.expired());
}

}  // namespace
}  // namespace kilnfs
