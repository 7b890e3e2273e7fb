// A file or directory of a tree that somebody refers to: the kernel, or an open file.
//
// It knows by which names it can be reached and which file on disk it is, but holds no descriptor,
// so a million of them cost memory only. The exception is a file whose last name was removed while
// it is referred to: it keeps a descriptor, being reachable by nothing else.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <atomic>
#include <boost/intrusive_ptr.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "store/backing_id.h"
#include "store/base/fd.h"
#include "store/tree/listing.h"

namespace kilnfs {

class File;
class Inode;
class Tree;
using InodePtr = boost::intrusive_ptr<Inode>;
void intrusive_ptr_add_ref(Inode* inode);
void intrusive_ptr_release(Inode* inode);

/// Numbers for nodes of the mounted tree, never used twice. 1 is the root of the mount.
uint64_t nextNodeNumber();

class Inode {
 public:
  Inode(const Inode&) = delete;
  Inode& operator=(const Inode&) = delete;

  uint64_t number() const { return number_; }
  /// S_IFREG, S_IFDIR, ...
  mode_t type() const { return type_; }
  bool isDirectory() const { return S_ISDIR(type_); }
  Tree& tree() const { return *tree_; }
  /// How often the kernel has looked it up: whoever keeps the table of that guards it.
  uint64_t lookups = 0;
  /// Likewise, of the kernel's page cache: whether it was given the content, which it may have
  /// dropped since; and that it must not have any, as the file may be mapped for writing past it.
  std::atomic<bool> pagesGiven{false};
  std::atomic<bool> pagesBypassed{false};
  /// Of a directory or file that was copied up, the file on disk that it is now.
  BackingId backing() const { return {ino_.load(std::memory_order_relaxed), dev_}; }

 private:
  friend class Tree;
  friend void intrusive_ptr_add_ref(Inode* inode);
  friend void intrusive_ptr_release(Inode* inode);

  struct Link {
    InodePtr parent;  // null: the root of the tree
    std::string name;
  };
  struct Rare {
    std::vector<Link> links;                      // names beside the first, of hard links
    std::shared_ptr<UniqueFd> kept;               // O_PATH, once there is no name
    std::vector<const File*> open;                // what Tree::addOpen was told of
    std::shared_ptr<const FormerListing> former;  // of a directory that was made own
  };

  Inode(std::shared_ptr<Tree> tree, BackingId backing, mode_t type);
  ~Inode() = default;

  const std::shared_ptr<Tree> tree_;
  const uint64_t number_;
  const uint32_t dev_;
  std::atomic<uint64_t> ino_;  // changes under inodes_, and only while names_ is held exclusively
  const mode_t type_;
  std::atomic<bool> stub_{false};  // a directory that is still the snapshot's; likewise
  // Made by us, as nobody else changes this tree, and never given file capabilities.
  std::atomic<bool> incapable_{false};
  std::atomic<uint32_t> refs_{0};  // goes to and from 0 only under the tree's inodes_ lock

  // Guarded by the tree's inodes_ lock:
  InodePtr parent_;
  std::unique_ptr<char[]> name_;  // null: the root, or no name left
  std::unique_ptr<Rare> rare_;
};

}  // namespace kilnfs
