// Every process that descends from this one.
#pragma once

namespace kilnfs::supervise {

/// Sends SIGKILL to all descendants. Those that are forked meanwhile are for the next call.
void killDescendants();

}  // namespace kilnfs::supervise
