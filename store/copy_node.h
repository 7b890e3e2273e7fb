// Copying one file of a tree, whatever it is, with all that belongs to it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "store/base/error.h"

namespace kilnfs {

/// Makes `toName` in `toDir`, which must not exist, a copy of the file open at `from` (O_PATH will
/// do; no directory): content (a reflink where the file system can, holes kept), owner, mode,
/// times, extended attributes, ACLs. `keep`: no more than so many bytes of content. On failure
/// nothing is left. Blocks as long as the copying takes.
Status copyNode(int from, int toDir, const std::string& toName,
                std::optional<uint64_t> keep = std::nullopt);

/// Gives the file or directory open at `to` owner, mode, extended attributes, ACLs and times of
/// that at `from`; an ACL that it inherited goes. Both may be O_PATH. What the daemon has no right
/// to give is left out, as rsync does.
Status copyAttributes(int from, int to);

/// Whether two directories have the same of these, but for the time of the last access.
Expected<bool> sameAttributes(int a, int b);

}  // namespace kilnfs
