// Cuts a mount's connection to a daemon that died.
#pragma once

namespace kilnfs::supervise {

/// Waits for the death of the daemon, our parent with the number `pid`, then aborts its FUSE
/// connection: by standard input if that is the kernel's control file for it, else by the mount
/// with the device number `device` (as "0:47"), if it is there still. Once it has
/// begun, signals of anybody else are ignored. Returns the status to exit with.
int guard(const char* pid, const char* device);

}  // namespace kilnfs::supervise
