// One daemon has a store at a time.
#pragma once

#include <string>

#include "store/base/error.h"
#include "store/base/fd.h"
#include "store/layout.h"

namespace kilnfs {

/// Takes the store, for as long as the descriptor is open, and says in it who has it, and `mount`ed
/// where. EBUSY: somebody else has; blocks for up to ten seconds for one who is not mounted any
/// more, as it is ending.
Expected<UniqueFd> takeLock(const Layout& layout, const std::string& mount);

}  // namespace kilnfs
