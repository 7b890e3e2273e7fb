#include "tools/supervise/guard.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>

#include "store/base/mountinfo.h"

namespace kilnfs::supervise {
namespace {

constexpr int kParentDied = SIGUSR1;

/// The path at which a device is mounted; empty: nowhere. Asks nothing of the mounts themselves,
/// which would not answer.
std::string mountOf(const std::string& device) {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    MountLine mount = mountLine(line);
    if (mount.device == device && mount.type == "fuse.kilnfs") return std::move(mount.point);
  }
  return {};
}

/// Any user may do it for a mount of theirs, but not everywhere is it there.
bool abortByNumber(const std::string& device) {
  const std::string minor = device.substr(device.find(':') + 1);
  const std::string file = "/sys/fs/fuse/connections/" + minor + "/abort";
  const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool done = ::write(fd, "1", 1) == 1;
  ::close(fd);
  return done;
}

}  // namespace

int guard(const char* pid, const char* device) {
  ::setsid();
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, kParentDied);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  if (::prctl(PR_SET_PDEATHSIG, kParentDied) != 0 || ::chdir("/") != 0) return 1;
  // It may have died before we could ask to be told.
  while (::getppid() == std::atoi(pid) && ::sigwaitinfo(&set, nullptr) != kParentDied) {
  }
  const std::string path = mountOf(device);
  if (path.empty() || abortByNumber(device)) return 0;
  // Held, so that it is not unmounted as well: whoever works in there is to get an error, and not
  // to write into the directory below.
  const int held = ::open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  const bool done = held >= 0 && ::umount2(path.c_str(), MNT_FORCE | UMOUNT_NOFOLLOW) != 0;
  return done && errno == EBUSY ? 0 : 1;
}

}  // namespace kilnfs::supervise
