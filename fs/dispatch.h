// From libfuse's callbacks to nodes and handles.
#pragma once

#include "fs/fuse_compat.h"
#include "fs/mount.h"

namespace kilnfs {

/// What the callbacks get as user data; outlives the session.
struct Dispatch {
  Mount& mount;
  std::function<void()> ready;  // called once, when the kernel and we have agreed
};

const fuse_lowlevel_ops& fuseOperations();

}  // namespace kilnfs
