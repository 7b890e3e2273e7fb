// Publishing a cache by exchange: the commit of a lease, and its recovery.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "store/core.h"
#include "store/seal.h"

namespace kilnfs {

/// A sealed workspace, and its name in cache-tmp/.
struct Successor {
  std::string name;
  Workspace& workspace;
};

/// Makes the sealed tree the cache `name`: for each of its stubs the directory that it stands for
/// changes places with it, then the trees do. `current`, which has the successor's name then, is
/// told what it gave to `next`. Recorded before it begins, so that a crash in between is rolled
/// forward. On failure everything is back where it was. O(number of stubs).
Status exchangeWithGifts(Core& core, const std::string& name, const Successor& successor,
                         Snapshot& current, const std::shared_ptr<Snapshot>& next,
                         const std::vector<Sealed::Stub>& stubs);

/// Finishes what a crash interrupted. Before anything in cache-tmp/ is removed.
Status finishPublishing(Core& core);

}  // namespace kilnfs
