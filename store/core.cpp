#include "store/core.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kilnfs {

Status giveTo(const Area& area, const std::string& name, User owner) {
  if (::geteuid() != 0) return {};
  if (::fchownat(area.fd.get(), name.c_str(), owner.uid, owner.gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return failErrno(fmt::format("chown {}/{}", area.path, name));
  }
  return {};
}

Status makeOwnedDirectory(const Area& area, const std::string& name, User owner) {
  if (::mkdirat(area.fd.get(), name.c_str(), 0755) != 0) {
    return failErrno(fmt::format("make {}/{}", area.path, name));
  }
  // The mode is part of the result: the daemon's umask must not show in it.
  ::fchmodat(area.fd.get(), name.c_str(), 0755, 0);
  return giveTo(area, name, owner);
}

}  // namespace kilnfs
