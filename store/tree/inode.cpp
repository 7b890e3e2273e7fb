#include "store/tree/inode.h"

#include "store/tree/directory_cache.h"
#include "store/tree/tree.h"

namespace kilnfs {

uint64_t nextNodeNumber() {
  static std::atomic<uint64_t> next{2};
  return next++;
}

Inode::Inode(std::shared_ptr<Tree> tree, BackingId backing, mode_t type)
    : tree_(std::move(tree)),
      number_(nextNodeNumber()),
      dev_(backing.dev),
      ino_(backing.ino),
      type_(type) {}

void intrusive_ptr_add_ref(Inode* inode) {
  inode->refs_.fetch_add(1, std::memory_order_relaxed);
}

void intrusive_ptr_release(Inode* inode) {
  // The last reference goes under the lock under which look-ups find the inode.
  uint32_t refs = inode->refs_.load(std::memory_order_relaxed);
  while (refs > 1) {
    if (inode->refs_.compare_exchange_weak(refs, refs - 1, std::memory_order_acq_rel)) return;
  }
  // Parents are released after the lock was, and in a loop: trees can be very deep.
  std::vector<Inode*> dropped{inode};
  while (!dropped.empty()) {
    Inode* at = dropped.back();
    dropped.pop_back();
    const std::shared_ptr<Tree> tree = at->tree_;
    std::unique_lock lock(tree->inodes_);
    if (at->refs_.fetch_sub(1, std::memory_order_acq_rel) != 1) continue;
    if (tree->known_.find(at->backing()) == at) tree->known_.erase(at->backing());
    if (at->parent_) dropped.push_back(at->parent_.detach());
    if (at->rare_) {
      for (auto& link : at->rare_->links) dropped.push_back(link.parent.detach());
    }
    lock.unlock();
    if (at->isDirectory()) DirectoryCache::ofProcess().drop(*at);
    delete at;
  }
}

}  // namespace kilnfs
