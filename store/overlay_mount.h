// The system calls that mount an overlay for one process and its children.
#pragma once

#include <string>
#include <vector>

#include "store/base/error.h"
#include "store/base/fd.h"

namespace kilnfs {

/// What is mounted: for whom it is in a name space, and for the daemon a descriptor.
struct Mounted {
  UniqueFd space;  // a mount namespace, a copy of the daemon's
  UniqueFd view;   // the root of the mount; other files are opened from it
};

/// A mount namespace that is a copy of the daemon's, with an overlay at `at` (absolute; often the
/// upper directory itself) that nobody outside sees. `lower`: directories, the top first; no more
/// than their descriptors' names take 255 bytes. `index`: hard links of the lower directories stay
/// what they are. Needs CAP_SYS_ADMIN. Ends when the descriptors are closed and no process is
/// in the namespace. Blocks for a moment: makes a thread. EAGAIN: there can be no more.
Expected<Mounted> mountOverlay(const std::vector<UniqueFd>& lower, int upper, int work, bool index,
                               const std::string& at);

/// Makes the overlay that `mount` is of read-only for good, not this mount alone: a command may
/// have made others of it, in namespaces of its own, and handed them to somebody. EBUSY, after some
/// patience: by whichever mount, a file is open for writing, or is open and was deleted.
Status makeReadOnly(int mount);

}  // namespace kilnfs
