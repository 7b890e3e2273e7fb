#include "fs/guard.h"

#include <unistd.h>

namespace kilnfs {

Expected<Process> guardMount(const std::string& program, const Connection& connection) {
  Process::Options options;
  options.env = Process::helperEnvironment();
  options.stdinFd = connection.aborter();
  options.ownGroup = false;  // it makes a session of its own, which a group's leader can't
  return Process::start({program, "--guard", std::to_string(::getpid()), connection.device()},
                        options);
}

}  // namespace kilnfs
