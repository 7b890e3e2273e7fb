// Which kilnfs mount a kiln command is about.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "store/base/error.h"

namespace kilnfs {

/// The mount points of type fuse.kilnfs in the text of /proc/self/mountinfo, decoded, in order,
/// each once. Bind mounts of a part of a kilnfs tree are not listed: they have no control file.
std::vector<std::string> kilnfsMounts(std::string_view mountinfo);

/// The mount to use: `option` (--mount), else `variable` (KILN_MOUNT), else the only one there is.
/// Empty strings count as absent. ENOENT: none is mounted; EEXIST: several are. An absolute path.
Expected<std::string> chooseMount(const std::string& option, const std::string& variable,
                                  std::string_view mountinfo);

/// chooseMount for this process, checked to be a kilnfs that answers.
Expected<std::string> findMount(const std::string& option);

/// The error for a failed system call on a file of the mount: says so where the daemon has gone.
Error mountError(const std::string& mount, const std::string& what, int code);

/// The same for the opening of the mount's file `control`: says what decides who may write there.
Error controlError(const std::string& mount, int code);

}  // namespace kilnfs
