#pragma once

#include <string>
#include <vector>

#include "store/base/error.h"

namespace kilnfs {

/// The names in an open directory, without "." and "..", in no order: all of them are read before
/// the caller changes any. Does not move the offset of `dirFd`.
Expected<std::vector<std::string>> directoryNames(int dirFd);

/// Whether it has none. Reads no more than it needs to; likewise.
Expected<bool> isEmptyDirectory(int dirFd);

}  // namespace kilnfs
