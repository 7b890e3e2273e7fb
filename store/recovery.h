// What start-up does about what a crash left behind.
#pragma once

#include "store/core.h"

namespace kilnfs {

/// Queues work in progress for deletion and makes the database agree with the directories; each
/// action is logged. Needs the store's lock. Safe to repeat.
Status recover(Core& core);

}  // namespace kilnfs
