// From a snapshot, some of whose directories are elsewhere, to a directory tree that is complete.
#pragma once

#include <functional>
#include <string>

#include "store/base/interrupt.h"
#include "store/layout.h"
#include "store/seal.h"
#include "store/snapshot.h"
#include "store/store.h"

namespace kilnfs {

/// What the new tree's files come from, for who records them.
struct PlainFile {
  std::string path;  // in the tree
  int dirFd;         // of the directory that it is in, in the new tree
  std::string name;
  struct stat attributes;
  /// Where it has been before, unchanged: a file of another snapshot. Null: it was made here, or
  /// nobody knows.
  const Snapshot::Place* unchangedSince;
};

struct MakePlain {
  Snapshot& from;
  const Area& area;  // the tree is made as `name` here, which must not exist
  std::string name;
  Mode mode;
  /// Files in directories that are here, but are another snapshot's too. Mode::copy copies them
  /// and all that is elsewhere; everything else is linked.
  const SharedFiles& shared;
  std::function<void(const PlainFile&)> tell;  // may be empty
};

/// Makes the tree, with the snapshot's attributes, times and hard links, and returns its link
/// counts where they are known without a walk. Blocks for O(its size). EINTR when interrupted;
/// ENOSPC and the like. After a failure what there is of it is only good for the trash.
Expected<std::optional<LinkCounts>> makePlain(const MakePlain& what, Interrupt& interrupt);

}  // namespace kilnfs
