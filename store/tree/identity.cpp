#include "store/tree/identity.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace kilnfs {
namespace {

mode_t processUmask = 022;  // written before threads exist

// Secure bit of this thread: keep capabilities when the file system uid changes, so that a file can
// be made for a user in a directory that only root could have opened (the kernel checked already).
void keepCapabilities(bool keep) {
  const int bits = ::prctl(PR_GET_SECUREBITS);
  if (bits < 0) return;
  const int wanted = keep ? bits | SECBIT_NO_SETUID_FIXUP : bits & ~SECBIT_NO_SETUID_FIXUP;
  if (wanted != bits) ::prctl(PR_SET_SECUREBITS, wanted);
}

struct ThreadState {
  ThreadState() : ownUmask(::unshare(CLONE_FS) == 0), root(::geteuid() == 0) {
    if (root) keepCapabilities(true);
  }
  const bool ownUmask;
  const bool root;
  mode_t umask = ~mode_t{0};  // not known yet
};

ThreadState& threadState() {
  thread_local ThreadState state;
  return state;
}

}  // namespace

CreateAs::CreateAs(const Creator& creator) : creator_(creator) {
  ThreadState& thread = threadState();
  if (thread.ownUmask && thread.umask != creator.umask) {
    ::umask(creator.umask);
    thread.umask = creator.umask;
  }
  if (thread.root && (creator.uid != 0 || creator.gid != 0)) {
    ::setfsgid(creator.gid);
    ::setfsuid(creator.uid);
    switched_ = true;
  }
}

CreateAs::~CreateAs() {
  if (!switched_) return;
  ::setfsuid(0);
  ::setfsgid(0);
}

mode_t CreateAs::mode(mode_t wanted) const {
  return threadState().ownUmask ? wanted : wanted & ~creator_.umask;
}

namespace {

struct Capabilities {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  bool get() { return ::syscall(SYS_capget, &header, data) == 0; }
  bool set() { return ::syscall(SYS_capset, &header, data) == 0; }
};

// Asked for once: nothing but WithoutFsetid changes what a thread has as itself.
Capabilities threadCapabilities() {
  thread_local const Capabilities own = [] {
    Capabilities now;
    return now.get() ? now : Capabilities();
  }();
  return own;
}

}  // namespace

WithoutFsetid::WithoutFsetid() {
  Capabilities less = threadCapabilities();
  constexpr uint32_t kFsetid = 1U << CAP_FSETID;
  if ((less.data[0].effective & kFsetid) == 0) return;
  less.data[0].effective &= ~kFsetid;
  changed_ = less.set();
}

WithoutFsetid::~WithoutFsetid() {
  if (changed_) threadCapabilities().set();
}

void rememberProcessUmask() {
  processUmask = ::umask(022);
  ::umask(processUmask);
}

void resetThreadIdentity() {
  thread_local bool done = false;
  if (done) return;
  done = true;
  // The maker of this thread may have its own umask and secure bits, and shares its umask with us.
  if (::unshare(CLONE_FS) == 0) ::umask(processUmask);
  if (::geteuid() == 0) keepCapabilities(false);
}

}  // namespace kilnfs
