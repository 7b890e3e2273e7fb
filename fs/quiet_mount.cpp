#include "fs/quiet_mount.h"

#include <fcntl.h>
#include <sys/mount.h>

namespace kilnfs {

QuietMount::QuietMount(const std::string& path) {
  UniqueFd root(::open_tree(AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  struct mount_attr quiet = {};
  quiet.attr_set = MOUNT_ATTR_NOATIME;
  quiet.attr_clr = MOUNT_ATTR__ATIME;
  if (root.valid() && ::mount_setattr(root.get(), "", AT_EMPTY_PATH, &quiet, sizeof quiet) == 0) {
    // Handles are opened by a descriptor that is really open.
    root_.reset(::openat(root.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
}

UniqueFd QuietMount::reopen(int fd) const {
  if (!root_.valid()) return UniqueFd();
  union {
    struct file_handle handle;
    char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
  } file;
  file.handle.handle_bytes = MAX_HANDLE_SZ;
  int mount = 0;
  if (::name_to_handle_at(fd, "", &file.handle, &mount, AT_EMPTY_PATH) != 0) return UniqueFd();
  return UniqueFd(::open_by_handle_at(root_.get(), &file.handle, O_RDONLY | O_CLOEXEC));
}

}  // namespace kilnfs
