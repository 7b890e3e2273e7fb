// An open directory of a tree. Counts as an open of its workspace. Thread-safe.
#pragma once

#include <functional>
#include <string>

#include "store/tree/directory_stream.h"
#include "store/tree/tree.h"

namespace kilnfs {

class Directory {
 public:
  using Item = DirectoryStream::Item;  // its `ino` as lookup() of the name will say

  /// `workspace` may be null (a snapshot's directory); it was told of the open already.
  Directory(InodePtr inode, UniqueFd fd, std::shared_ptr<Workspace> workspace);
  ~Directory();
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  /// As DirectoryStream::read, with the tree's inode numbers.
  Status read(off_t from, const std::function<bool(const Item&)>& fn);

  /// As Tree::lookup, without walking to the directory.
  Expected<Tree::Entry> lookup(const std::string& name) const;
  Status sync() const;
  const InodePtr& inode() const { return inode_; }

 private:
  const InodePtr inode_;
  DirectoryStream stream_;
  const std::shared_ptr<Workspace> workspace_;
};

}  // namespace kilnfs
