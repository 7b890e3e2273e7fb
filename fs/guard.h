// What helps a mount whose daemon is killed.
#pragma once

#include <string>

#include "fs/connection.h"
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
/// it is that thread's end that is noticed. Ended by destroying it, once the connection is given
/// up. It has a session of its own, so that what ends the daemon's does not end it. Who kills it
/// beside the daemon (a service manager that kills all processes of a service with SIGKILL) has
/// the kernel's own end of the connection and no more. Without the kernel's control files
/// (Connection::aborter) it can't do anything for what is not mounted any more but still in use.
Expected<Process> guardMount(const std::string& program, const Connection& connection);

}  // namespace kilnfs
