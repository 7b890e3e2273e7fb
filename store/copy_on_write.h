// What a workspace shares with the snapshot that it lies over: copy on write by directory.
//
// A directory of the workspace is *own* (a real directory on disk, complete) or a *stub*: on disk
// an empty directory that stands for a directory of the snapshot, and is read from there. Below a
// stub nothing is on disk. The first change in a stub makes it own: its files become hard links to
// the snapshot's, its subdirectories stubs. A file that is still such a link is *shared*; the first
// change to it gives it an inode of its own. So nothing hides and nothing is merged, and a stub can
// be renamed like any directory.
//
// This class is the record of it; `store/tree/` acts on it and sealing reads it. It lives in memory
// only: workspaces live no longer than the daemon. Thread-safe; does no I/O.
#pragma once

#include <sys/stat.h>

#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "store/snapshot.h"

namespace kilnfs {

class CopyOnWrite {
 public:
  struct Stub {
    std::string path;  // of the directory in the snapshot; empty: its root
    /// The attributes are those of the empty directory on disk, not the snapshot's: a tree's root
    /// is given to who works in it.
    bool ownAttributes = false;
  };
  /// A file with several names in the snapshot. Its names may be below stubs, out of reach, so it
  /// is not replaced name by name: they all stand for `file`, once it has been changed.
  struct Group {
    std::string file;   // in the workspace's side directory; empty: still the snapshot's content
    BackingId id;       // of that file
    nlink_t links = 0;  // names in the workspace

    bool replaced() const { return !file.empty(); }
  };

  explicit CopyOnWrite(std::shared_ptr<Snapshot> base) : base_(std::move(base)) {}

  const std::shared_ptr<Snapshot>& base() const { return base_; }

  /// Says, before anybody else knows of it, that the workspace is as overlay_base.h wants it.
  void setPlainToOverlayfs() { plainToOverlayfs_ = true; }
  /// If not, nobody has looked.
  bool plainToOverlayfs() const { return plainToOverlayfs_; }

  void addStub(const BackingId& placeholder, Stub stub, const BackingId& origin);
  void removeStub(const BackingId& placeholder);
  /// Of a placeholder or a copy that is gone before anybody has seen it.
  void forget(const BackingId& id);
  std::optional<Stub> stub(const BackingId& placeholder) const;
  /// Whether the root itself is still a stub: nothing in the tree was changed.
  bool untouched() const;
  std::unordered_map<BackingId, Stub, HashBackingId> stubs() const;

  void addShared(const BackingId& file);
  void removeShared(const BackingId& file);
  bool isShared(const BackingId& file) const;

  /// The group that the file is of, once its content or its number of names has changed.
  std::optional<Group> group(const BackingId& file) const;
  void setGroup(const BackingId& file, Group group);
  std::unordered_map<BackingId, Group, HashBackingId> groups() const;
  /// The file that an inode is known by: of a group's replaced file, the snapshot's; of what is
  /// left where the snapshot gave a directory to its successor, that directory.
  BackingId canonical(const BackingId& id) const;

  /// The file whose inode number `id` shows: what it was a copy of, or itself.
  BackingId origin(const BackingId& id) const;
  void setOrigin(const BackingId& id, const BackingId& origin);

  // The time of change that a file or directory shows. Links, copies and stubs are the store's own
  // affair and no change that anybody asked for, but move the time on disk.

  /// `id` shows `shown` while it is as in `now`: until it is changed on disk.
  void keepChangeTime(const BackingId& id, const struct timespec& shown, const struct stat& now);
  /// `id`, a stub or shared, shows `shown` whatever is on disk, if it shows nothing else already.
  void showChangeTime(const BackingId& id, const struct timespec& shown);
  /// Somebody did change it, now.
  void changed(const BackingId& id);
  /// What it shows, if `st` is what is on disk.
  struct timespec changeTime(const BackingId& id, const struct stat& st) const;

 private:
  struct ChangeTime {
    struct timespec shown = {};
    bool always = false;
    struct timespec ctime = {}, mtime = {};  // on disk, if not always
  };

  const std::shared_ptr<Snapshot> base_;
  bool plainToOverlayfs_ = false;
  mutable std::shared_mutex mutex_;
  // Guarded by mutex_:
  std::optional<BackingId> root_;  // while it is a stub
  std::unordered_map<BackingId, Stub, HashBackingId> stubs_;
  std::unordered_map<BackingId, BackingId, HashBackingId> origins_;
  std::unordered_set<BackingId, HashBackingId> shared_;
  std::unordered_map<BackingId, Group, HashBackingId> groups_;
  std::unordered_map<BackingId, BackingId, HashBackingId> canonical_;
  std::unordered_map<BackingId, ChangeTime, HashBackingId> changeTimes_;
};

}  // namespace kilnfs
