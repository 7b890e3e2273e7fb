#include "fs/tables.h"

#include <algorithm>

namespace kilnfs {

NodeRef NodeTable::find(uint64_t number) const {
  const Shard& s = shard(number);
  const std::lock_guard lock(s.mutex);
  if (Inode* inode = s.inodes.find(number)) return NodeRef(InodePtr(inode));
  if (const auto it = s.own.find(number); it != s.own.end()) return NodeRef(it->second.node);
  return {};
}

void NodeTable::remember(const NodeRef& node) {
  const uint64_t number = node.number();
  Shard& s = shard(number);
  const std::lock_guard lock(s.mutex);
  if (node.inode) {
    if (node.inode->lookups++ > 0) return;
    s.inodes.insert(InodePtr(node.inode).detach());
  } else {
    auto& known = s.own[number];
    if (!known.node) known.node = node.own;
    ++known.lookups;
  }
}

void NodeTable::forget(uint64_t number, uint64_t times) {
  // Dropped after the lock: the last reference may take down a tree.
  InodePtr inode;
  std::shared_ptr<OwnNode> own;
  Shard& s = shard(number);
  const std::lock_guard lock(s.mutex);
  if (Inode* known = s.inodes.find(number)) {
    known->lookups -= std::min(times, known->lookups);
    if (known->lookups > 0) return;
    s.inodes.erase(number);
    inode = InodePtr(known, false);
  } else if (const auto it = s.own.find(number); it != s.own.end()) {
    it->second.lookups -= std::min(times, it->second.lookups);
    if (it->second.lookups > 0) return;
    own = std::move(it->second.node);
    s.own.erase(it);
  }
}

void NodeTable::clear() {
  for (Shard& s : shards_) {
    std::vector<InodePtr> inodes;
    decltype(s.own) own;
    const std::lock_guard lock(s.mutex);
    for (Inode* inode : s.inodes.take()) {
      inode->lookups = 0;
      inodes.emplace_back(inode, false);
    }
    own.swap(s.own);
  }
}

size_t NodeTable::size() const {
  size_t n = 0;
  for (const Shard& s : shards_) {
    const std::lock_guard lock(s.mutex);
    n += s.inodes.size() + s.own.size();
  }
  return n;
}

uint64_t HandleTable::add(std::shared_ptr<Handle> handle) {
  const std::lock_guard lock(mutex_);
  handles_.emplace(next_, std::move(handle));
  return next_++;
}

std::shared_ptr<Handle> HandleTable::find(uint64_t number) const {
  const std::lock_guard lock(mutex_);
  const auto it = handles_.find(number);
  return it != handles_.end() ? it->second : nullptr;
}

std::shared_ptr<Handle> HandleTable::remove(uint64_t number) {
  const std::lock_guard lock(mutex_);
  const auto node = handles_.extract(number);
  return node.empty() ? nullptr : std::move(node.mapped());
}

std::vector<std::shared_ptr<Handle>> HandleTable::clear() {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Handle>> all;
  for (auto& [number, handle] : handles_) all.push_back(std::move(handle));
  handles_.clear();
  return all;
}

size_t HandleTable::size() const {
  const std::lock_guard lock(mutex_);
  return handles_.size();
}

}  // namespace kilnfs
