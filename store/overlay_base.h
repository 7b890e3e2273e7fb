// What of a snapshot the kernel's overlayfs would not show as it is.
#pragma once

#include "store/snapshot.h"

namespace kilnfs {

/// Whether overlayfs, with the snapshot as its lower directory, shows the snapshot and nothing
/// else: character devices 0:0, which it takes for white-outs, and attributes trusted.overlay.*,
/// which it keeps for itself, make the difference. Reads the whole tree, but for the content of
/// files.
Expected<bool> plainToOverlayfs(const Snapshot& snapshot);
/// The same of what is in no other snapshot.
Expected<bool> ownPartPlainToOverlayfs(const Snapshot& snapshot);

}  // namespace kilnfs
