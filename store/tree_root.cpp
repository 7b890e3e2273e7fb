#include "store/tree_root.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace kilnfs {

Expected<UniqueFd> TreeRoot::open(const std::string& below, int flags) const {
  struct open_how how = {};
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  if ((flags & O_CREAT) != 0) return fail(EINVAL, "TreeRoot::open does not create");
  for (;;) {
    std::string path;
    int areaFd;
    {
      const std::lock_guard lock(mutex_);
      path = below.empty() ? name_ : name_ + "/" + below;
      areaFd = areaFd_;
    }
    const long fd = ::syscall(SYS_openat2, areaFd, path.c_str(), &how, sizeof how);
    if (fd >= 0) return UniqueFd(static_cast<int>(fd));
    if (errno == EAGAIN || errno == EINTR) continue;  // a rename raced with the walk
    return failErrno("open " + key_ + "/" + below);
  }
}

std::string TreeRoot::path() const {
  const std::lock_guard lock(mutex_);
  return areaPath_ + "/" + name_;
}

void TreeRoot::moved(int areaFd, std::string areaPath, std::string name) {
  const std::lock_guard lock(mutex_);
  areaFd_ = areaFd;
  areaPath_ = std::move(areaPath);
  name_ = std::move(name);
}

}  // namespace kilnfs
