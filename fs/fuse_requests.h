// Requests as libfuse takes them from the kernel.
#pragma once

#include <memory>

#include "fs/request_loop.h"

struct fuse_session;

namespace kilnfs {

/// `session`: mounted, and outlives what is returned. From now on its descriptor does not block.
std::unique_ptr<RequestSource> fuseRequests(fuse_session* session);

}  // namespace kilnfs
