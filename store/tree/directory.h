// An open directory of a tree. Counts as an open of its workspace. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "store/tree/directory_stream.h"
#include "store/tree/tree.h"

namespace kilnfs {

class Directory {
 public:
  using Item = DirectoryStream::Item;  // its `ino` as lookup() of the name will say

  /// `workspace` may be null (a snapshot's directory); it was told of the open already.
  /// `shared`: the descriptor is of the snapshot that the workspace lies over.
  Directory(InodePtr inode, UniqueFd fd, std::shared_ptr<Workspace> workspace, bool shared);
  ~Directory();
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  /// As DirectoryStream::read, with the tree's inode numbers.
  Status read(off_t from, const std::function<bool(const Item&)>& fn);

  /// As Tree::lookup, without walking to the directory where that can be spared.
  Expected<Tree::Entry> lookup(const std::string& name) const;
  Status sync() const;
  const InodePtr& inode() const { return inode_; }

 private:
  struct Open {
    Open(UniqueFd fd, bool ofSnapshot) : stream(std::move(fd)), shared(ofSnapshot) {}
    DirectoryStream stream;
    const bool shared;
  };
  std::shared_ptr<Open> now() const;
  Status startAfresh();
  bool stillThere(const char* name) const;

  const InodePtr inode_;
  const std::shared_ptr<Workspace> workspace_;
  mutable std::mutex mutex_;
  std::shared_ptr<Open> open_;  // guarded by mutex_; replaced when it was shared and is own now
};

}  // namespace kilnfs
