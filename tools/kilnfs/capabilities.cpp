#include "tools/kilnfs/capabilities.h"

#include <cap-ng.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace kilnfs {
namespace {

constexpr std::array kUsed = {
    // Trees of all users, as they are: any name, owner, mode, device and attribute.
    CAP_CHOWN, CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,  // and opening files by handle
    CAP_FOWNER, CAP_FSETID, CAP_MKNOD, CAP_SETFCAP,
    CAP_LEASE,  // on a user's file, which tells whether it is open for writing
    // Files made, and sources read, with a user's ids.
    CAP_SETGID, CAP_SETUID,
    CAP_SETPCAP,  // a thread's secure bits
    // Mounts, passthrough, attributes trusted.*.
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,    // where the processes of other users stand
    CAP_SYS_RESOURCE,  // pipes that hold a whole request; a file system's reserve, as for root
};

/// Whether a program that is run as root has the whole bounding set, as root is used to.
bool rootRegains() {
  const int secured = ::prctl(PR_GET_SECUREBITS);
  return ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0 && secured >= 0 &&
         (secured & SECBIT_NOROOT) == 0;
}

}  // namespace

Status dropCapabilities() {
  if (::geteuid() != 0 || !rootRegains()) return {};
  if (capng_get_caps_process() != 0) return failErrno("look at the capabilities");
  const auto inUse = static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED);
  for (unsigned one = 0; one <= CAP_LAST_CAP; ++one) {
    if (std::find(kUsed.begin(), kUsed.end(), static_cast<int>(one)) != kUsed.end()) continue;
    if (capng_update(CAPNG_DROP, inUse, one) != 0) return failErrno("choose the capabilities");
  }
  if (capng_apply(CAPNG_SELECT_CAPS) != 0) return failErrno("drop capabilities");
  return {};
}

}  // namespace kilnfs
