// What the kernel knows by number: nodes, with how often it has looked them up, and open handles.
// Thread-safe. The numbers are keys, never addresses: a wrong one is an error, not a crash.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "fs/node.h"
#include "store/base/pointer_table.h"

namespace kilnfs {

/// A node as the table holds it: of a tree, or the daemon's own; or none.
struct NodeRef {
  InodePtr inode;
  std::shared_ptr<OwnNode> own;

  NodeRef() = default;
  explicit NodeRef(InodePtr i) : inode(std::move(i)) {}
  explicit NodeRef(std::shared_ptr<OwnNode> n) : own(std::move(n)) {}
  explicit operator bool() const { return inode || own; }
  uint64_t number() const { return inode ? inode->number() : own->number(); }
};

class NodeTable {
 public:
  ~NodeTable() { clear(); }
  NodeRef find(uint64_t number) const;
  /// Counts a look-up. Call it before the answer that tells the kernel is sent.
  void remember(const NodeRef& node);
  /// Takes `times` look-ups back; at none the node is dropped.
  void forget(uint64_t number, uint64_t times);
  void clear();
  size_t size() const;

 private:
  struct ByNumber {
    using Key = uint64_t;
    static Key key(const Inode& inode) { return inode.number(); }
    static size_t hash(Key number) { return mix64(number); }
  };
  struct Own {
    std::shared_ptr<OwnNode> node;
    uint64_t lookups = 0;
  };
  struct Shard {
    mutable std::mutex mutex;
    // Guarded by mutex. Inodes, of which there may be millions: each is held by one reference, and
    // its count is in itself.
    PointerTable<Inode, ByNumber> inodes;
    std::unordered_map<uint64_t, Own> own;
  };
  static constexpr size_t kShards = 16;
  Shard& shard(uint64_t number) { return shards_[number % kShards]; }
  const Shard& shard(uint64_t number) const { return shards_[number % kShards]; }

  std::array<Shard, kShards> shards_;
};

class HandleTable {
 public:
  uint64_t add(std::shared_ptr<Handle> handle);
  std::shared_ptr<Handle> find(uint64_t number) const;
  std::shared_ptr<Handle> remove(uint64_t number);
  /// Removes all, and gives them.
  std::vector<std::shared_ptr<Handle>> clear();
  size_t size() const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<Handle>> handles_;  // guarded by mutex_
  uint64_t next_ = 1;                                              // guarded by mutex_
};

}  // namespace kilnfs
