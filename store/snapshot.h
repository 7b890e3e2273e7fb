// A snapshot: an immutable directory tree in the store. Held by a shared_ptr, its files stay
// readable through open descriptors even after it was deleted (they are freed in the background).
//
// A snapshot that is superseded can give its directories to the one that follows it, so that
// publishing a cache costs what was changed and not what was kept. Who still reads the old one is
// sent to where they are now: the directories are the same, and neither snapshot changes.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <unordered_map>

#include "store/backing_id.h"
#include "store/base/name.h"
#include "store/tree_root.h"

namespace kilnfs {

/// Files with more than one name inside a tree, and how many. The count on disk does not tell:
/// other snapshots and workspaces may share the inode.
using LinkCounts = std::unordered_map<BackingId, nlink_t, HashBackingId>;

class Snapshot : public TreeRoot {
 public:
  using TreeRoot::TreeRoot;

  /// As TreeRoot::open; what has been given away is opened where it is now.
  Expected<UniqueFd> open(const std::string& below, int flags) const override;

  /// A directory that was given away: what is at `from` now is an empty directory, `placeholder`.
  struct Gift {
    std::string from;
    BackingId placeholder;
    std::string to;  // in the successor
    BackingId id;
  };
  /// Held while directories are moved from here to the successor, so that nobody looks meanwhile.
  class Giving {
   public:
    Giving(Snapshot& from, std::shared_ptr<Snapshot> to);
    /// Says that `gift` has been moved.
    void add(Gift gift);

   private:
    Snapshot& from_;
    const std::unique_lock<std::shared_mutex> lock_;
  };
  /// The directory that a directory found on disk here stands for: itself, unless given away.
  BackingId standsFor(const BackingId& found) const;

  /// How many names the file has inside this tree. The first call walks the tree once, unless the
  /// counts are known from sealing it. Thread-safe.
  nlink_t linksInside(const BackingId& file) const;
  /// All files with more than one name, if that is known without a walk.
  std::optional<LinkCounts> knownLinks() const;
  void setLinks(LinkCounts links);

 private:
  mutable std::mutex linksMutex_;
  mutable bool counted_ = false;  // guarded by linksMutex_
  mutable LinkCounts links_;      // guarded by linksMutex_

  mutable std::shared_mutex giftsMutex_;
  // Guarded by giftsMutex_:
  std::shared_ptr<Snapshot> successor_;
  std::map<std::string, std::string> gifts_;  // path here -> path there
  std::unordered_map<BackingId, BackingId, HashBackingId> placeholders_;
};

}  // namespace kilnfs
