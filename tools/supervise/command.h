// Starting the command: everything between fork and exec.
#pragma once

#include <sys/types.h>

#include <string>

#include "tools/supervise/options.h"

namespace kilnfs::supervise {

/// Forks and starts the command in a process group of its own, with `output` as its standard output
/// and error, in the directory `view` (-1: options.dir). Returns once it has been executed. -1 with
/// `error` ("ERRNO TEXT") when it can't be.
pid_t startCommand(const Options& options, int view, int output, std::string& error);

}  // namespace kilnfs::supervise
