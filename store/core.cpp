#include "store/core.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "store/copy_node.h"

namespace kilnfs {

Status giveTo(const Area& area, const std::string& name, User owner) {
  if (::geteuid() != 0) return {};
  if (::fchownat(area.fd.get(), name.c_str(), owner.uid, owner.gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return failErrno(fmt::format("chown {}/{}", area.path, name));
  }
  return {};
}

Expected<Space> Core::df() const {
  struct statvfs st = {};
  if (::fstatvfs(layout.result().fd.get(), &st) != 0) return failErrno("df " + layout.root());
  Space space;
  space.totalBytes = static_cast<uint64_t>(st.f_blocks) * st.f_frsize;
  space.freeBytes = static_cast<uint64_t>(st.f_bavail) * st.f_frsize;
  space.totalInodes = st.f_files;
  space.freeInodes = st.f_favail;
  return space;
}

Expected<std::shared_ptr<Workspace>> openWorkspace(const Area& area, const std::string& name,
                                                   const std::string& key,
                                                   const std::shared_ptr<Snapshot>& base) {
  auto from = base->open("", O_RDONLY | O_DIRECTORY);
  if (!from) return Failure(from.error());
  const UniqueFd to(
      ::openat(area.fd.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!to.valid()) return failErrno(fmt::format("open {}/{}", area.path, name));
  if (auto ok = copyAttributes(from->get(), to.get()); !ok) return Failure(ok.error());
  struct stat origin = {};
  struct stat placeholder = {};
  if (::fstat(from->get(), &origin) != 0 || ::fstat(to.get(), &placeholder) != 0) {
    return failErrno("stat");
  }
  auto cow = std::make_unique<CopyOnWrite>(base);
  cow->addStub(backingId(placeholder), {"", true}, backingId(origin));
  return std::make_shared<Workspace>(area.fd.get(), area.path, name, key, std::move(cow));
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
