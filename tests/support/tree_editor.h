// Reads and changes trees by path, as the mount does.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "store/tree/tree.h"

namespace kilnfs::testing {

/// The directory that `path` is in, and its name there.
inline std::pair<InodePtr, std::string> splitIn(Tree& tree, const std::string& path) {
  InodePtr at = tree.root().value().inode;
  size_t begin = 0;
  for (size_t end; (end = path.find('/', begin)) != std::string::npos; begin = end + 1) {
    at = tree.lookup(*at, path.substr(begin, end - begin)).value().inode;
  }
  return {at, path.substr(begin)};
}

inline std::string readIn(Tree& tree, const std::string& path) {
  const auto [parent, name] = splitIn(tree, path);
  auto entry = tree.lookup(*parent, name);
  if (!entry) return "(none)";
  auto file = tree.open(*entry->inode, O_RDONLY, true);
  if (!file) return "(error)";
  char buffer[64] = {};
  const ssize_t n = ::pread((*file)->fd(), buffer, sizeof buffer, 0);
  return {buffer, static_cast<size_t>(std::max<ssize_t>(n, 0))};
}

/// Changes a workspace as the mount does.
class Editor {
 public:
  explicit Editor(const std::shared_ptr<Workspace>& workspace)
      : tree_(Tree::create(workspace, 0)) {}

  void write(const std::string& path, const std::string& content) {
    const auto [parent, name] = split(path);
    auto made = tree_->create(*parent, name, O_WRONLY | O_TRUNC, 0644, me_);
    ASSERT_TRUE(made) << path << ": " << made.error().code;
    ASSERT_EQ(::pwrite(made->file->fd(), content.data(), content.size(), 0),
              static_cast<ssize_t>(content.size()));
  }
  std::string read(const std::string& path) { return readIn(*tree_, path); }
  void rename(const std::string& from, const std::string& to) {
    const auto [a, name] = split(from);
    const auto [b, newName] = split(to);
    ASSERT_TRUE(tree_->rename(*a, name, *b, newName, 0));
  }
  void mkdir(const std::string& path) {
    const auto [parent, name] = split(path);
    ASSERT_TRUE(tree_->mkdir(*parent, name, 0755, me_));
  }
  void link(const std::string& from, const std::string& to) {
    const auto [a, name] = split(from);
    const auto [b, newName] = split(to);
    ASSERT_TRUE(tree_->link(*tree_->lookup(*a, name)->inode, *b, newName));
  }
  void remove(const std::string& path) {
    const auto [parent, name] = split(path);
    ASSERT_TRUE(tree_->unlink(*parent, name));
  }

 private:
  std::pair<InodePtr, std::string> split(const std::string& path) { return splitIn(*tree_, path); }

  const std::shared_ptr<Tree> tree_;
  const Creator me_{::geteuid(), ::getegid(), 022};
};

}  // namespace kilnfs::testing
