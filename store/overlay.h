// Builds at native speed: a build's directory as the kernel's overlayfs over its base.
//
// The command gets the overlay itself, in a mount namespace of its own; everybody else sees the
// same tree through the mount, by way of a descriptor that the daemon holds. When the command has
// ended, what it left in the overlay's upper directory becomes a workspace that is copy on write
// (overlay_upper.h), as if it had been changed through the mount. Whatever can't be done like that
// with the same outcome is not: then the FUSE workspace serves.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <ctime>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "store/base/interrupt.h"
#include "store/base/workers.h"
#include "store/layout.h"
#include "store/overlay_layers.h"
#include "store/snapshot.h"
#include "store/trash.h"
#include "store/workspace.h"

namespace kilnfs {

/// One build's directory. Destroyed, its mount and what it kept beside the directory are dropped.
class Overlay {
 public:
  virtual ~Overlay() = default;
  /// For use while the command runs. Changed elsewhere: see Workspace::native.
  virtual std::shared_ptr<Workspace> seen() const = 0;
  /// Nothing of the command is left, and seen() is frozen: the frozen workspace to be sealed, which
  /// nobody can change by what they hold of seen() or of the command's mounts. Call once. Blocks
  /// for O(what the command changed); for O(size of the tree) if a file of it is still written to,
  /// or was deleted and is open. After a failure the directory is only good for the trash.
  /// `trusted`: who built it needs no such ways to change it, and is spared what closing them
  /// costs.
  virtual Expected<std::shared_ptr<Workspace>> finish(bool trusted, Interrupt& interrupt) = 0;
};

/// Those of one store. Thread-safe. Must outlive the overlays and their workspaces.
class Overlays {
 public:
  /// `area` is where builds are made; both outlive this object.
  Overlays(const Area& area, Trash& trash) : area_(area), trash_(trash) {}
  ~Overlays();
  Overlays(const Overlays&) = delete;
  Overlays& operator=(const Overlays&) = delete;

  /// Whether a command can be given a view of its own here. The first call tries it out; if not,
  /// the reason is logged.
  bool available();

  /// Over `base` at `name` of the area, which is a new and empty directory and gets the attributes
  /// of the base's root; over nothing if that is null. Null: not with this base, or not here.
  /// Blocks for O(what the builds changed of what it lies over and is not plain yet); for O(size of
  /// the base) the first time, unless that was built past the mount and the counts of its links are
  /// known.
  Expected<std::unique_ptr<Overlay>> open(const std::string& name, const std::string& key,
                                          const std::shared_ptr<Snapshot>& base);

  /// The plain result that has this root is known to be such as overlayfs shows it
  /// (overlay_base.h): it is not looked through the first time that it is used.
  void takeAsSuited(const Snapshot& result, const struct stat& root) {
    remember(result, root, true);
  }

 private:
  friend class MountedOverlay;
  struct Checked {
    ino_t ino = 0;  // of the root, and when that was changed: the base may be another by now
    struct timespec changed = {};
    bool plain = false;  // see overlay_base.h
  };
  /// What is to be mounted, the top first, and must stay for as long.
  struct Lower {
    std::vector<UniqueFd> roots;
    std::vector<std::shared_ptr<const OverlayLayer>> layers;
  };
  Status probe();
  /// What a build lies over that has no base.
  std::shared_ptr<Snapshot> nothing() const;
  Expected<std::optional<Lower>> lowerOf(const std::shared_ptr<Snapshot>& base);
  std::shared_ptr<const OverlayLayer> layerOf(const std::shared_ptr<Snapshot>& sealed,
                                              const Snapshot& base);
  Expected<bool> suits(const std::shared_ptr<Snapshot>& base);
  void remember(const Snapshot& base, const struct stat& root, bool plain);

  const Area& area_;
  Trash& trash_;
  std::mutex mutex_;
  std::optional<bool> available_;           // guarded by mutex_
  std::map<std::string, Checked> checked_;  // guarded by mutex_; by the key of the base
  std::mutex layersMutex_;                  // held while a layer is made
  unsigned nextLayer_ = 1;                  // guarded by layersMutex_
  Workers closers_;  // giving a mount up takes the kernel its time; last: its jobs use nothing
};

}  // namespace kilnfs
