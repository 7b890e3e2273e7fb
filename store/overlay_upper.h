// From what overlayfs has left in its upper directory to a workspace that is copy on write.
#pragma once

#include <memory>
#include <string>

#include "store/copy_on_write.h"

namespace kilnfs {

/// What the kernel was given as upper and work directory.
struct UpperDirectory {
  int areaFd;        // the directory that holds both
  std::string name;  // of the upper directory
  std::string work;  // of the work directory
  std::string side;  // a prefix for names in areaFd that are the workspace's own (beside())
};

/// Makes the upper directory, in place, what store/copy_on_write.h describes: each directory in it
/// complete, stubs for what is still the base's, no trace of the overlay. As the base is plain to
/// overlayfs (overlay_base.h), so is this, unless the command gave it attributes. Nobody changes
/// the overlay any more. Blocks for O(what was changed); where names of a file that has several,
/// and was changed, are in directories that were not, the base's directories are read as well.
/// After a failure the directory is only good for the trash.
Expected<std::unique_ptr<CopyOnWrite>> translateUpper(const UpperDirectory& upper,
                                                      const std::shared_ptr<Snapshot>& base);

}  // namespace kilnfs
