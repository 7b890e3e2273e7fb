// The file that a file of the snapshot's becomes under all of its names at once.
#pragma once

#include <string>

#include "store/copy_on_write.h"

namespace kilnfs {

/// Copies the file `from` to `file` in the directory `sideFd`, and says so as CopyOnWrite::setGroup
/// takes it: `names` of the workspace stand for the copy. After a failure no copy is left.
Expected<CopyOnWrite::Group> copyForAllNames(int from, int sideFd, std::string file, nlink_t names);

}  // namespace kilnfs
