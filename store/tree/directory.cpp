#include "store/tree/directory.h"

#include <unistd.h>

#include <cstring>

namespace kilnfs {

Directory::Directory(InodePtr inode, UniqueFd fd, std::shared_ptr<Workspace> workspace)
    : inode_(std::move(inode)), stream_(std::move(fd)), workspace_(std::move(workspace)) {}

Directory::~Directory() {
  if (workspace_) workspace_->closed(false);
}

Status Directory::read(off_t from, const std::function<bool(const Item&)>& fn) {
  return stream_.read(from, [&](const Item& onDisk) {
    Item item = onDisk;
    item.ino = std::strcmp(item.name, "..") == 0 ? inode_->tree().parentIno(*inode_)
                                                 : inode_->tree().visibleIno(*inode_, item.ino);
    return fn(item);
  });
}

Expected<Tree::Entry> Directory::lookup(const std::string& name) const {
  return inode_->tree().lookupAt(stream_.fd(), *inode_, name);
}

Status Directory::sync() const {
  if (::fsync(stream_.fd()) != 0) return fail(errno);
  return {};
}

}  // namespace kilnfs
