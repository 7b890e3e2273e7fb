// A workspace: a writable tree over one snapshot, or over nothing. Private to its owner (a build,
// a lease, an import) until it is sealed into a snapshot or discarded.
//
// Whoever changes the tree through `store/tree/` does so under a Change, so that sealing can wait
// for the changes that are under way and refuse later ones. Thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "store/copy_on_write.h"
#include "store/tree_root.h"

namespace kilnfs {

class Workspace : public TreeRoot {
 public:
  using TreeRoot::TreeRoot;
  /// Over a snapshot: `cow` knows what of it is still the snapshot's. Null: over nothing, or over a
  /// plain copy.
  Workspace(int areaFd, std::string areaPath, std::string name, std::string key,
            std::unique_ptr<CopyOnWrite> cow)
      : TreeRoot(areaFd, std::move(areaPath), std::move(name), std::move(key)),
        cow_(std::move(cow)) {}

  CopyOnWrite* cow() const { return cow_.get(); }

  /// Where a build's command gets the directory past the mount, and so without its cost.
  struct Native {
    std::string path;                       // absolute
    std::shared_ptr<const UniqueFd> space;  // the mount namespace that has it; null: the daemon's
  };
  /// Before anybody else knows the workspace.
  void setNative(Native native) { native_ = std::move(native); }
  const std::optional<Native>& native() const { return native_; }
  /// The command has ended: lets the namespace go, though the workspace may be known for long. By
  /// the thread that ran the command, which alone looks at it.
  void leaveSpace() {
    if (native_) native_->space.reset();
  }
  /// Whether others than the daemon change the tree, so that nothing of it may be cached.
  bool changedElsewhere() const { return native_.has_value(); }

  /// Permission to change the tree, for the duration of one operation.
  class Change {
   private:
    friend class Workspace;
    explicit Change(std::shared_lock<std::shared_mutex> lock) : lock_(std::move(lock)) {}
    std::shared_lock<std::shared_mutex> lock_;
  };

  /// Nothing once the workspace is frozen: the caller answers ESTALE. Marks the tree as changed.
  std::optional<Change> beginChange();

  /// For one who learns of a write only afterwards (data written by the kernel to an open file).
  void markChanged() { changed_ = true; }
  /// Whether anything was changed since the workspace was made.
  bool changed() const { return changed_ && (!cow_ || !cow_->untouched()); }

  /// For one whose write failed (ENOSPC, EIO): a build whose tmpdir lost data must not succeed,
  /// even if its command ignores the error. The first one is kept; 0: none.
  void noteWriteError(int code) {
    int none = 0;
    writeError_.compare_exchange_strong(none, code);
  }
  int writeError() const { return writeError_; }

  /// Says that each write must come by here, so that one that fails is noted: called before anybody
  /// can open a file.
  void noticeWrites() { noticeWrites_ = true; }
  bool noticesWrites() const { return noticeWrites_; }

  /// For one who closes a file that others may have mapped for writing, by the kernel alone: it
  /// counts as open for writing as long as that is so. The descriptor is for reading.
  void watchMapping(UniqueFd readOnly);
  bool mappedForWriting(const BackingId& file) const;
  bool anyMapped() const { return anyMapped_; }

  /// Counted while a file of the tree is open (directories the kernel opens by itself); writers are
  /// also counted as opens. An open for writing is begun under a Change, so that none slips in
  /// behind freezeIfQuiet.
  void opened(bool forWriting);
  void closed(bool forWriting);
  int opens() const { return opens_; }
  int writers() const { return writers_; }

  /// Waits for changes under way and refuses later ones. With `evenWithWriters` false: false, and
  /// nothing happened, if a file is open for writing. Idempotent.
  bool freeze(bool evenWithWriters);
  bool frozen() const { return frozen_; }

 private:
  void forgetUnmapped();
  bool knownAsMapped(const BackingId& file) const;

  const std::unique_ptr<CopyOnWrite> cow_;
  std::optional<Native> native_;
  bool noticeWrites_ = false;
  mutable std::mutex mappedMutex_;
  std::vector<std::pair<BackingId, UniqueFd>> mapped_;  // guarded by mappedMutex_
  std::atomic<bool> anyMapped_{false};
  std::shared_mutex gate_;           // shared: a change is under way
  std::atomic<bool> frozen_{false};  // written under gate_ held exclusively
  std::atomic<bool> changed_{false};
  std::atomic<int> writeError_{0};  // an errno
  std::atomic<int> opens_{0};
  std::atomic<int> writers_{0};
};

}  // namespace kilnfs
