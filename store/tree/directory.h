// An open directory of a tree, read in the backing file system's own order. The cookies are its own
// as well, so that entries made or removed meanwhile neither hide nor repeat the others.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "store/tree/tree.h"

namespace kilnfs {

class Directory {
 public:
  struct Item {
    const char* name;    // valid during the call
    uint64_t ino;        // as lookup() of the name will say
    unsigned char type;  // DT_*
    off_t next;          // the cookie of the item after this one
  };

  /// `workspace` may be null (a snapshot's directory); it was told of the open already.
  Directory(InodePtr inode, UniqueFd fd, std::shared_ptr<Workspace> workspace);
  ~Directory();
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  /// Gives the items from the cookie `from` on (0: the start, read afresh) to `fn` until that says
  /// false: the item was not taken. "." and ".." are among them. Thread-safe.
  Status read(off_t from, const std::function<bool(const Item&)>& fn);

  /// As Tree::lookup, without walking to the directory.
  Expected<Tree::Entry> lookup(const std::string& name) const;
  Status sync() const;
  const InodePtr& inode() const { return inode_; }

 private:
  Status fill();

  const InodePtr inode_;
  const UniqueFd fd_;
  const std::shared_ptr<Workspace> workspace_;
  std::mutex mutex_;
  std::vector<char> buffer_;  // guarded by mutex_, as what follows
  size_t used_ = 0;           // bytes in buffer_
  size_t at_ = 0;             // the next item in buffer_
  off_t position_ = 0;        // its cookie
};

}  // namespace kilnfs
