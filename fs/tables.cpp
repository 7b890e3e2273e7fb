#include "fs/tables.h"

namespace kilnfs {

NodeRef NodeTable::find(uint64_t number) const {
  const Shard& s = shard(number);
  const std::lock_guard lock(s.mutex);
  if (const auto it = s.inodes.find(number); it != s.inodes.end()) return NodeRef(it->second.node);
  if (const auto it = s.own.find(number); it != s.own.end()) return NodeRef(it->second.node);
  return {};
}

void NodeTable::remember(const NodeRef& node) {
  const uint64_t number = node.number();
  Shard& s = shard(number);
  const std::lock_guard lock(s.mutex);
  if (node.inode) {
    auto& known = s.inodes[number];
    if (!known.node) known.node = node.inode;
    ++known.lookups;
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
  const auto take = [&](auto& map, auto& dropped) {
    const auto it = map.find(number);
    if (it == map.end()) return;
    if (it->second.lookups > times) {
      it->second.lookups -= times;
      return;
    }
    dropped = std::move(it->second.node);
    map.erase(it);
  };
  take(s.inodes, inode);
  take(s.own, own);
}

void NodeTable::clear() {
  for (Shard& s : shards_) {
    decltype(s.inodes) inodes;
    decltype(s.own) own;
    const std::lock_guard lock(s.mutex);
    inodes.swap(s.inodes);
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
