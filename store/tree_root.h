// Where a tree's files are on disk: a name in one of the store's directories. Snapshots and
// workspaces are tree roots; `store/tree/` reads and changes what is below them.
#pragma once

#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>

#include "store/base/error.h"
#include "store/base/fd.h"

namespace kilnfs {

/// The path of an entry of `directory`, whose own path is empty for the root.
inline std::string pathBelow(const std::string& directory, const std::string& name) {
  return directory.empty() ? name : directory + "/" + name;
}

class TreeRoot {
 public:
  /// `areaFd` is the store's directory that holds `name`; it outlives this object.
  /// `key` names the tree for good ("results/<id>", "leases/npm.3"): inode numbers derive from it.
  TreeRoot(int areaFd, std::string areaPath, std::string name, std::string key)
      : key_(std::move(key)),
        areaFd_(areaFd),
        areaPath_(std::move(areaPath)),
        name_(std::move(name)) {}
  virtual ~TreeRoot() = default;
  TreeRoot(const TreeRoot&) = delete;
  TreeRoot& operator=(const TreeRoot&) = delete;

  const std::string& key() const { return key_; }

  /// Opens what is at `below` (relative, no leading slash; empty: the root itself), following no
  /// symbolic link and never leaving the root. `flags` as for open(2), O_CLOEXEC is added. Follows
  /// the tree when the store has moved it. Thread-safe.
  virtual Expected<UniqueFd> open(const std::string& below, int flags) const;

  /// A directory beside the tree, on the same file system, for what must not be seen in it, and a
  /// prefix for names there that is this tree's own. Only while the tree is not moved.
  std::pair<int, std::string> beside() const;

  /// The absolute path on disk now. Only for commands that the store runs: it may move.
  std::string path() const;

  /// Held by the store (layout.h) while it renames the tree, so that nobody looks for it meanwhile:
  /// at its former name there may be another one.
  class Moving {
   public:
    /// Null: nobody has the tree, and nothing is held.
    explicit Moving(TreeRoot* tree) : tree_(tree) {
      if (tree_ != nullptr) lock_ = std::unique_lock(tree_->mutex_);
    }
    void to(int areaFd, const std::string& areaPath, const std::string& name);

   private:
    TreeRoot* const tree_;
    std::unique_lock<std::shared_mutex> lock_;
  };

 private:
  const std::string key_;
  mutable std::shared_mutex mutex_;  // shared: the tree is not renamed
  int areaFd_;                       // guarded by mutex_
  std::string areaPath_;             // guarded by mutex_
  std::string name_;                 // guarded by mutex_
};

}  // namespace kilnfs
