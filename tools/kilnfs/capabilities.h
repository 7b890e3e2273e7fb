// What of root's rights the daemon keeps.
#pragma once

#include "store/base/error.h"

namespace kilnfs {

/// Gives up, for this thread and those that it starts, the capabilities that the daemon does not
/// use. The bounding set stays: programs that the daemon starts as root have all of them again, so
/// that a command of root's can do what root can. To be called before any thread is started.
/// Without effect where the daemon is not root, or where nothing could be had again.
Status dropCapabilities();

}  // namespace kilnfs
