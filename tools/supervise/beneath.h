// Small changes below a directory that a stranger may have filled: no symbolic link is followed
// and nothing outside is touched.
#pragma once

#include <string>

namespace kilnfs::supervise {

/// A descriptor (O_PATH) of directory `path` below `root`, or -1 with errno. With `make`, missing
/// directories are made. EINVAL for a path that is absolute or has a ".." in it.
int openBeneath(int root, const std::string& path, bool make);

/// Makes a symbolic link at `path` to `target`. An empty directory there gives way; else EEXIST.
bool makeLink(int root, const std::string& path, const std::string& target);

/// Removes the link, if it is there and still has that target. False with errno.
bool removeLink(int root, const std::string& path, const std::string& target);

}  // namespace kilnfs::supervise
