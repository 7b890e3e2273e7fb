// Copying trees with rsync, losing nothing on the way: -aHAXS --numeric-ids.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "store/base/error.h"
#include "store/base/interrupt.h"

namespace kilnfs {

struct CopyTree {
  std::string source;       // directories; what is in `source` is copied into `destination`
  std::string destination;  // must exist
  std::optional<std::string> linkTo;  // identical files become hard links into this tree
  std::vector<std::string> exclude;   // anchored rsync patterns, "/log"
};

/// The words of the command; runs nothing.
std::vector<std::string> rsyncCommand(const CopyTree& copy);
/// Blocks until the copy is complete. EINTR when interrupted, EIO with rsync's own words; the
/// destination is then incomplete and for the caller to remove.
Status copyTree(const CopyTree& copy, Interrupt& interrupt);

}  // namespace kilnfs
