// Deleting a directory tree of any depth, with names and modes as hostile as they may be.
#pragma once

#include "store/base/error.h"

namespace kilnfs {

/// Deletes what `name` in directory `dirFd` is: a file, or a tree. Follows no symbolic link and
/// crosses no mount. Directories without permission are opened up first (by their owner). Blocks
/// for O(size of the tree). Returns the first error, after deleting what can be deleted;
/// a missing `name` is no error.
Status removeTree(int dirFd, const std::string& name);

}  // namespace kilnfs
