// A snapshot: an immutable directory tree in the store. Held by a shared_ptr, its files stay
// readable through open descriptors even after it was deleted (they are freed in the background).
//
// Some of a snapshot's directories may be elsewhere, and an empty directory, a placeholder, where
// they should be. Whoever opens one is sent to where it is:
//   - a result that was sealed, but not made plain yet, has what its build did not change in the
//     results that it lies over (materializer.h), its root included if nothing was changed at all;
//   - a cache's snapshot that is superseded gave its directories to the one that follows it, so
//     that publishing costs what was changed and not what was kept (publish.h).
// Either way the directories are the same, and no snapshot changes.
#pragma once

#include <atomic>
#include <ctime>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

#include "store/backing_id.h"
#include "store/base/name.h"
#include "store/tree_root.h"

namespace kilnfs {

class OverlayLayer;

/// Files with more than one name inside a tree, and how many. The count on disk does not tell:
/// other snapshots and workspaces may share the inode.
using LinkCounts = std::unordered_map<BackingId, nlink_t, HashBackingId>;

class Snapshot : public TreeRoot, public std::enable_shared_from_this<Snapshot> {
 public:
  using TreeRoot::TreeRoot;

  /// As TreeRoot::open; what is elsewhere is opened there.
  Expected<UniqueFd> open(const std::string& below, int flags) const override;

  struct Place {
    std::shared_ptr<Snapshot> snapshot;
    std::string path;
  };
  /// A directory that is elsewhere: what is at `from` here is an empty directory, `placeholder`.
  struct Elsewhere {
    std::string from;
    BackingId placeholder;
    Place to;
    BackingId id;  // of the directory there
  };
  /// Held while directories are moved from here to another snapshot, so that nobody looks
  /// meanwhile.
  class Giving {
   public:
    explicit Giving(Snapshot& from) : from_(from), lock_(from.elsewhereMutex_) {}
    /// Says that a directory is about to be moved: who has the directory that it is in open may
    /// meet the placeholder at once.
    void announce(const Elsewhere& gift) { from_.insertPlaceholder(gift); }
    /// Says that it will not be moved after all.
    void withdraw(const Elsewhere& gift) { from_.placeholders_.erase(gift.placeholder); }
    /// Says that it has been moved.
    void add(Elsewhere gift) { from_.insert(std::move(gift)); }

   private:
    Snapshot& from_;
    const std::unique_lock<std::shared_mutex> lock_;
  };
  /// Before anybody else knows of the snapshot: it has been made with these placeholders.
  void refer(std::vector<Elsewhere> directories);

  /// What a sealed result was built over: by path here, the paths in `base` of the directories that
  /// are still the base's.
  struct Over {
    std::shared_ptr<Snapshot> base;  // as it was then: the files that are still its own are these
    std::map<std::string, std::string> stubs;
    bool plainToOverlayfs = false;  // see CopyOnWrite
  };
  /// Before anybody else knows of the snapshot.
  void lieOver(Over over) { over_ = std::move(over); }
  const std::optional<Over>& over() const { return over_; }
  /// What stands for it as a layer of overlays (overlay_layers.h), once somebody has made that.
  std::shared_ptr<const OverlayLayer> layer() const;
  void setLayer(std::shared_ptr<const OverlayLayer> layer);

  /// Where the directory `path` really is: here, unless it is (below) one that is elsewhere.
  Place resolve(const std::string& path);
  /// The directory that a directory found on disk, here or where this leads to, stands for: itself,
  /// unless it is a placeholder.
  BackingId standsFor(const BackingId& found) const;
  /// Whether `path` is here.
  bool isHere(const std::string& path) const;
  /// Whether everything is here: the tree on disk is complete.
  bool plain() const { return plain_.load(std::memory_order_acquire); }

  /// Files of the tree that are open, and when one was opened last (seconds since the epoch; 0: not
  /// since this was asked). Thread-safe.
  void fileOpened() {
    ++openFiles_;
    lastOpened_ = ::time(nullptr);
  }
  void fileClosed() { --openFiles_; }
  int openFiles() const { return openFiles_; }
  int64_t takeLastOpened() { return lastOpened_.exchange(0); }

  // The names of files are counted when somebody asks first, by a walk over the tree, unless they
  // are known from sealing it. That fails if something can't be read, and is tried again then.
  // Thread-safe.

  /// How many names the file has inside this tree. If that can't be counted a file must not be
  /// parted from what may be its other names.
  Expected<nlink_t> linksInside(const BackingId& file) const;
  /// Whether any file has more than one.
  Expected<bool> hasLinks() const;
  /// All files with more than one name, if that is known without a walk.
  std::optional<LinkCounts> knownLinks() const;
  void setLinks(LinkCounts links);

 private:
  Status countLinks() const;  // with linksMutex_ held
  // Called with elsewhereMutex_ held:
  void insert(Elsewhere directory);
  void insertPlaceholder(const Elsewhere& directory);
  std::atomic<int> openFiles_{0};
  std::atomic<int64_t> lastOpened_{0};

  mutable std::mutex linksMutex_;
  mutable bool counted_ = false;  // guarded by linksMutex_
  mutable LinkCounts links_;      // guarded by linksMutex_

  std::optional<Over> over_;

  mutable std::shared_mutex elsewhereMutex_;
  std::atomic<bool> plain_{true};  // written under elsewhereMutex_
  // Guarded by elsewhereMutex_:
  std::map<std::string, Place> elsewhere_;  // by path here
  std::unordered_map<BackingId, BackingId, HashBackingId> placeholders_;
  std::vector<std::shared_ptr<Snapshot>> others_;  // those in elsewhere_, each once
  std::shared_ptr<const OverlayLayer> layer_;
};

}  // namespace kilnfs
