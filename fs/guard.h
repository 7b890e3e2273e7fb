// What helps a mount whose daemon is killed.
#pragma once

#include <string>

#include "store/base/error.h"
#include "store/base/process.h"

namespace kilnfs {

/// Starts a process that aborts the mount's connection when this one dies.
///
/// The kernel does so itself once the daemon's last descriptor of it is closed. But a thread that
/// tells the kernel of a name that is gone waits, and can't be killed, for the directory's lock;
/// who has that may wait for an answer of the daemon's, which is dead; and the descriptor stays
/// open until that thread has ended: all three would wait for ever.
///
/// `program` is kiln-supervise. To be called by a thread that lives as long as the process, since
/// it is that thread's end that is noticed. Ended by destroying it.
Expected<Process> guardMount(const std::string& program, const std::string& mountpoint);

}  // namespace kilnfs
