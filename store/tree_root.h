// Where a tree's files are on disk: a name in one of the store's directories. Snapshots and
// workspaces are tree roots; `store/tree/` reads and changes what is below them.
#pragma once

#include <mutex>
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

  /// Told by the store when it has renamed the tree into another of its directories.
  void moved(int areaFd, std::string areaPath, std::string name);

 private:
  const std::string key_;
  mutable std::mutex mutex_;
  int areaFd_;            // guarded by mutex_
  std::string areaPath_;  // guarded by mutex_
  std::string name_;      // guarded by mutex_
};

}  // namespace kilnfs
