// What the kernel and we agree on when a mount begins.
#pragma once

#include "fs/fuse_compat.h"
#include "fs/mount.h"

namespace kilnfs {

/// Asks for what we want of what the kernel offers, and tells the mount what was granted. Called
/// once, before any other request.
void agree(fuse_conn_info& conn, Mount& mount);

}  // namespace kilnfs
