// A workspace over a snapshot, and its tree, without a store.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <string>

#include "store/tree/tree.h"
#include "tests/support/temp_dir.h"

namespace kilnfs::testing {

class TreeCowTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(dir_ / "s/a/b/c");
    std::filesystem::create_directories(dir_ / "s/empty");
    writeFile(dir_ / "s/top", "top");
    writeFile(dir_ / "s/a/file", "one");
    writeFile(dir_ / "s/a/b/deep", "deep");
    writeFile(dir_ / "s/a/b/c/deepest", "deepest");
    writeFile(dir_ / "s/a/linked", "linked");
    std::filesystem::create_hard_link(dir_ / "s/a/linked", dir_ / "s/a/b/also");
    std::filesystem::create_symlink("file", dir_ / "s/a/soft");
    ASSERT_EQ(::chmod((dir_ / "s/a/file").c_str(), 0640), 0);
    ASSERT_EQ(::setxattr((dir_ / "s/a/file").c_str(), "user.k", "v", 1, 0), 0);
    const struct timespec times[2] = {{1000, 1}, {2000, 2}};
    for (const char* p : {"s/a/file", "s/a", "s/a/b"}) {
      ASSERT_EQ(::utimensat(AT_FDCWD, (dir_ / p).c_str(), times, 0), 0);
    }
    areaFd_.reset(::open(dir_.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    before_ = digest(dir_ / "s");
    snapshot_ = std::make_shared<Snapshot>(areaFd_.get(), dir_.path(), "s", "results/s");
    std::filesystem::create_directory(dir_ / "w");
    auto cow = std::make_unique<CopyOnWrite>(snapshot_);
    struct stat w = {};
    struct stat s = {};
    ASSERT_EQ(::stat((dir_ / "w").c_str(), &w), 0);
    ASSERT_EQ(::stat((dir_ / "s").c_str(), &s), 0);
    cow->addStub(backingId(w), {"", true}, backingId(s));
    workspace_ =
        std::make_shared<Workspace>(areaFd_.get(), dir_.path(), "w", "leases/w.1", std::move(cow));
    tree_ = Tree::create(workspace_, 7);
  }
  void TearDown() override {
    EXPECT_EQ(digest(dir_ / "s"), before_) << "nothing reaches the snapshot";
  }

  /// Names, types, modes, link targets, sizes, times and content of a tree on disk.
  static std::string digest(const std::string& root) {
    std::set<std::string> lines;
    for (const auto& e : std::filesystem::recursive_directory_iterator(root)) {
      struct stat st = {};
      ::lstat(e.path().c_str(), &st);
      std::string line = e.path().string().substr(root.size()) + " " + std::to_string(st.st_mode) +
                         " " + std::to_string(st.st_uid) + " " + std::to_string(st.st_mtim.tv_sec);
      if (S_ISREG(st.st_mode)) line += " " + readFile(e.path());
      lines.insert(line);
    }
    std::string all;
    for (const auto& l : lines) all += l + "\n";
    return all;
  }

  Tree::Entry at(const std::string& path) {
    Tree::Entry entry = tree_->root().value();
    size_t begin = 0;
    while (begin < path.size()) {
      size_t end = path.find('/', begin);
      if (end == std::string::npos) end = path.size();
      auto next = tree_->lookup(*entry.inode, path.substr(begin, end - begin));
      EXPECT_TRUE(next) << path;
      entry = std::move(*next);
      begin = end + 1;
    }
    return entry;
  }
  InodePtr node(const std::string& path) { return at(path).inode; }
  std::string read(const std::string& path) {
    auto file = tree_->open(*node(path), O_RDONLY, true);
    if (!file) return "(error " + std::to_string(file.error().code) + ")";
    return readAll(**file);
  }
  static std::string readAll(const File& file) {
    char buffer[100] = {};
    const ssize_t n = ::pread(file.fd(), buffer, sizeof buffer, 0);
    return {buffer, static_cast<size_t>(std::max<ssize_t>(n, 0))};
  }
  void write(const std::string& path, const std::string& content) {
    auto file = tree_->open(*node(path), O_WRONLY | O_TRUNC, true);
    ASSERT_TRUE(file) << path << " " << file.error().code;
    ASSERT_EQ(::pwrite((*file)->fd(), content.data(), content.size(), 0),
              static_cast<ssize_t>(content.size()));
  }
  std::set<std::string> list(const std::string& path) {
    std::set<std::string> names;
    EXPECT_TRUE(tree_->readDirectory(*node(path), 0, [&](const Tree::Item& item) {
      if (std::string(item.name) != "." && std::string(item.name) != "..") {
        EXPECT_TRUE(names.insert(item.name).second) << item.name << " twice";
      }
      return true;
    }));
    return names;
  }
  template <class T>
  static int code(const T& result) {
    return result ? 0 : result.error().code;
  }

  TempDir dir_;
  UniqueFd areaFd_;
  std::string before_;
  std::shared_ptr<Snapshot> snapshot_;
  std::shared_ptr<Workspace> workspace_;
  std::shared_ptr<Tree> tree_;
  const Creator me_{::geteuid(), ::getegid(), 022};
};

}  // namespace kilnfs::testing
