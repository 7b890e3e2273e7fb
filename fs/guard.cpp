#include "fs/guard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kilnfs {

Expected<Process> guardMount(const std::string& program, const std::string& mountpoint) {
  // Nobody serves the mount yet: nothing may be asked of it.
  struct statx about = {};
  if (::statx(AT_FDCWD, mountpoint.c_str(),
              AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &about) != 0) {
    return failErrno("look at " + mountpoint);
  }
  Process::Options options;
  options.env = Process::helperEnvironment();
  return Process::start({program, "--guard", std::to_string(::getpid()),
                         fmt::format("{}:{}", about.stx_dev_major, about.stx_dev_minor)},
                        options);
}

}  // namespace kilnfs
