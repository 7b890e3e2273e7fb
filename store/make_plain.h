// From a snapshot, some of whose directories are elsewhere, to a directory tree that is complete.
#pragma once

#include <string>

#include "store/base/interrupt.h"
#include "store/layout.h"
#include "store/seal.h"
#include "store/snapshot.h"
#include "store/store.h"

namespace kilnfs {

struct MakePlain {
  Snapshot& from;
  const Area& area;  // the tree is made as `name` here, which must not exist
  std::string name;
  Mode mode;
  /// Files in directories that are here, but are another snapshot's too. Mode::copy copies them
  /// and all that is elsewhere; everything else is linked.
  const SharedFiles& shared;
};

/// Makes the tree, with the snapshot's attributes, times and hard links, and returns its link
/// counts where they are known without a walk. Blocks for O(its size). EINTR when interrupted;
/// ENOSPC and the like. After a failure what there is of it is only good for the trash.
Expected<std::optional<LinkCounts>> makePlain(const MakePlain& what, Interrupt& interrupt);

}  // namespace kilnfs
