// From a workspace that is copy on write to a tree that stands by itself, but for the directories
// that are still the snapshot's.
#pragma once

#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "store/workspace.h"

namespace kilnfs {

/// Files of a sealed tree that are links to the snapshot's.
using SharedFiles = std::unordered_set<BackingId, HashBackingId>;

struct Sealed {
  /// A stub that is left: an empty directory for one of the snapshot's.
  struct Stub {
    std::string path;      // in the workspace
    std::string snapshot;  // in the snapshot
    BackingId placeholder;
    BackingId origin;  // what it stands for: the directory as it is on disk
  };
  std::vector<Stub> stubs;
  SharedFiles shared;
  std::optional<LinkCounts> links;  // of the new tree, where known
};

/// Whether the root itself may be a stub that is left. Else it is made own: one directory's files.
enum class RootStub { stays, goes };

/// Brings the frozen `workspace`, which is copy on write, into its last form on disk. Blocks for
/// O(what was changed), but where a changed file has names in directories that were not: those are
/// looked for. After a failure the workspace is only good for the trash.
Expected<Sealed> seal(Workspace& workspace, RootStub root);

/// Removes what a workspace kept beside itself. Harmless where there is nothing.
void removeSideFiles(Workspace& workspace);

}  // namespace kilnfs
