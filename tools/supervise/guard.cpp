#include "tools/supervise/guard.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>

#include "store/base/fd.h"
#include "store/base/mountinfo.h"

namespace kilnfs::supervise {
namespace {

// One of those that queue: it is not lost behind another one that somebody has sent.
const int kParentDied = SIGRTMIN;
constexpr decltype(statfs::f_type) kControlFiles = 0x65735543;  // FUSE_CTL_SUPER_MAGIC

// What is sent to the daemon's session or group is not meant for us.
void blockSignals(sigset_t& set) {
  sigfillset(&set);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
}

// The kernel says so in the dying thread's name. Our parent's number would not do: while a thread
// of the daemon's is stuck, and that is what we are for, that does not change.
void waitForDeath(pid_t parent, const sigset_t& set) {
  while (::getppid() == parent) {
    siginfo_t signal = {};
    if (::sigwaitinfo(&set, &signal) == kParentDied && signal.si_pid == parent) return;
  }
}

bool isControlFile(int fd) {
  struct statfs system = {};
  return ::fstatfs(fd, &system) == 0 && system.f_type == kControlFiles;
}

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

bool abortMount(const std::string& device) {
  const std::string path = mountOf(device);
  if (path.empty()) return true;
  // Held, so that it is not unmounted as well: whoever works in there is to get an error, and not
  // to write into the directory below.
  const UniqueFd held(::open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!held.valid() || deviceAt(held.get(), "") != device) return false;
  const std::string itself = "/proc/self/fd/" + std::to_string(held.get());
  return ::umount2(itself.c_str(), MNT_FORCE) != 0 && errno == EBUSY;
}

}  // namespace

int guard(const char* pid, const char* device) {
  sigset_t set;
  blockSignals(set);
  ::setsid();
  if (::prctl(PR_SET_PDEATHSIG, kParentDied) != 0 || ::chdir("/") != 0) return 1;
  waitForDeath(std::atoi(pid), set);
  const bool done =
      isControlFile(STDIN_FILENO) ? ::write(STDIN_FILENO, "1", 1) == 1 : abortMount(device);
  return done ? 0 : 1;
}

}  // namespace kilnfs::supervise
