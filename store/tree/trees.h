// The trees that somebody looks at: one Tree for each snapshot or workspace, however it is reached.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>

#include "store/tree/tree.h"

namespace kilnfs {

/// Thread-safe. Keeps no tree alive.
class Trees {
 public:
  /// The tree of `root`, made now if nobody has it. `outerIno` as for Tree::create.
  template <class Root>
  std::shared_ptr<Tree> get(std::shared_ptr<Root> root, uint64_t outerIno) {
    const TreeRoot* key = root.get();
    const std::lock_guard lock(mutex_);
    std::weak_ptr<Tree>& known = trees_[key];
    // A tree holds its root, so while it lives nobody else has the address.
    if (auto tree = known.lock()) return tree;
    auto tree = Tree::create(std::move(root), outerIno);
    known = tree;
    if (trees_.size() > pruneAt_) prune();
    return tree;
  }

 private:
  void prune() {
    std::erase_if(trees_, [](const auto& item) { return item.second.expired(); });
    pruneAt_ = 64 + 2 * trees_.size();
  }

  std::mutex mutex_;
  std::unordered_map<const TreeRoot*, std::weak_ptr<Tree>> trees_;  // guarded by mutex_
  size_t pruneAt_ = 64;                                             // guarded by mutex_
};

}  // namespace kilnfs
