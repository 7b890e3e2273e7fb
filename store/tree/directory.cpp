#include "store/tree/directory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <shared_mutex>

namespace kilnfs {

Directory::Directory(InodePtr inode, UniqueFd fd, std::shared_ptr<Workspace> workspace, bool shared)
    : inode_(std::move(inode)),
      workspace_(std::move(workspace)),
      open_(std::make_shared<Open>(std::move(fd), shared)) {}

Directory::~Directory() {
  if (workspace_) workspace_->closed(false);
}

std::shared_ptr<Directory::Open> Directory::now() const {
  const std::lock_guard lock(mutex_);
  return open_;
}

Status Directory::startAfresh() {
  Tree& tree = inode_->tree();
  if (!now()->shared || !tree.isOwn(*inode_)) return {};
  const std::shared_lock names(tree.names_);
  auto opened = tree.openBacking(*inode_, O_RDONLY | O_DIRECTORY);
  if (!opened) return Failure(opened.error());
  const std::lock_guard lock(mutex_);
  open_ = std::make_shared<Open>(std::move(opened->fd), false);
  return {};
}

// The directory was made own while this was reading the snapshot's: that goes on, so that no entry
// is missed or seen twice, but what has been removed since must not show.
bool Directory::stillThere(const char* name) const {
  const Tree& tree = inode_->tree();
  if (!tree.isOwn(*inode_)) return true;
  const std::shared_lock lock(tree.names_);
  const auto dir = tree.openParent(*inode_);
  return dir && ::faccessat(dir->get(), name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

Status Directory::read(off_t from, const std::function<bool(const Item&)>& fn) {
  if (from == 0) {
    if (auto ok = startAfresh(); !ok) return ok;
  }
  const auto open = now();
  return open->stream.read(from, [&](const Item& onDisk) {
    if (open->shared && !stillThere(onDisk.name)) return true;
    Item item = onDisk;
    item.ino = std::strcmp(item.name, "..") == 0 ? inode_->tree().parentIno(*inode_)
                                                 : inode_->tree().visibleIno(*inode_, item.ino);
    return fn(item);
  });
}

Expected<Tree::Entry> Directory::lookup(const std::string& name) const {
  const auto open = now();
  if (open->shared) return inode_->tree().lookup(*inode_, name);
  return inode_->tree().lookupAt(open->stream.fd(), *inode_, name);
}

Status Directory::sync() const {
  if (::fsync(now()->stream.fd()) != 0) return fail(errno);
  return {};
}

}  // namespace kilnfs
