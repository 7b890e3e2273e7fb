// The process that forks the supervisors.
#pragma once

namespace kilnfs::supervise {

/// Takes requests from descriptor 0 until the daemon is gone; then returns the status to exit with.
/// In each process that it forks it returns what `supervise` does, which has the descriptors of the
/// request.
int serveRequests(int (*supervise)());

}  // namespace kilnfs::supervise
