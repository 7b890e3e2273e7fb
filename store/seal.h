// From a workspace that is copy on write to a directory tree that stands by itself.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "store/base/interrupt.h"
#include "store/store.h"
#include "store/workspace.h"

namespace kilnfs {

struct Sealed {
  /// Stubs that are left to be filled by the caller (see `sealKeepingStubs`).
  struct Stub {
    std::string path;      // in the workspace
    std::string snapshot;  // in the snapshot
    BackingId placeholder;
  };
  std::vector<Stub> stubs;
  std::optional<LinkCounts> links;  // of the new tree, where known
};

/// Makes the frozen `workspace` complete on disk: stubs are filled from its snapshot, with hard
/// links (Mode::hardlink) or copies, and in Mode::copy files that are still shared are copied.
/// Blocks for O(size of the tree). EINTR when interrupted. After a failure the workspace is only
/// good for the trash.
Expected<Sealed> sealWhole(Workspace& workspace, Mode mode, Interrupt& interrupt);

/// The same for a snapshot that supersedes its base: O(what was changed). What is shared may stay
/// so, since the base goes; the stubs are returned, to be exchanged with the base's directories.
Expected<Sealed> sealKeepingStubs(Workspace& workspace);

/// Removes what a workspace kept beside itself. Harmless where there is nothing.
void removeSideFiles(Workspace& workspace);

}  // namespace kilnfs
