// Checks of the two directories before anything is made of them.
#pragma once

#include <string>

#include "store/base/error.h"

namespace kilnfs {

/// The absolute path of an empty directory to mount on. Clears a mount that a dead daemon left
/// there. The sentence of an error names the directory and says what to do.
Expected<std::string> prepareMountpoint(const std::string& path);

/// The absolute path of the store, which need not exist yet. EINVAL: it is in the way of the mount.
Expected<std::string> resolveStore(const std::string& path, const std::string& mountpoint);

}  // namespace kilnfs
