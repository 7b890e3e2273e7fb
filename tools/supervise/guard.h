// Cuts a mount's connection to a daemon that died.
#pragma once

namespace kilnfs::supervise {

/// Waits for the death of the daemon, our parent with the number `pid`, then aborts the FUSE
/// connection of the mount with the device number `device` (as "0:47"), if it is there still.
/// Returns the status to exit with.
int guard(const char* pid, const char* device);

}  // namespace kilnfs::supervise
