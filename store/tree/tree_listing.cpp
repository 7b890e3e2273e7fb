// Directories of a tree: listing and syncing them.

#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "store/tree/tree.h"

namespace kilnfs {

std::shared_ptr<const FormerListing> Tree::formerListing(const Inode& directory) const {
  const std::lock_guard lock(inodes_);
  return directory.rare_ ? directory.rare_->former : nullptr;
}

void Tree::rememberListing(Inode& directory, std::string path, std::vector<off_t> cookies) {
  std::sort(cookies.begin(), cookies.end());
  auto former = std::make_shared<FormerListing>(FormerListing{std::move(path), std::move(cookies)});
  const std::lock_guard lock(inodes_);
  if (!directory.rare_) directory.rare_ = std::make_unique<Inode::Rare>();
  directory.rare_->former = std::move(former);
}

Status Tree::readDirectory(Inode& directory, off_t from,
                           const std::function<bool(const Item&)>& fn) {
  if (!directory.isDirectory()) return fail(ENOTDIR);
  if (auto ok = refuseFrozen(); !ok) return ok;
  const std::shared_lock lock(names_);
  const auto dir = openParent(directory);
  // A directory that was removed while it was open has no entries.
  if (!dir && dir.error().code == ENOENT) return {};
  if (!dir) return Failure(dir.error());
  if (!dir->open().readable()) return fail(EACCES);
  const auto former = formerListing(directory);
  if (former && from != 0 && former->has(from)) return readOn(directory, *former, *dir, from, fn);
  const auto cookie = [&](off_t at) { return former ? FormerListing::own(at) : at; };
  const auto done =
      dir->open().stream().read(from == 0 ? 0 : cookie(from), [&](const Item& onDisk) {
        Item item = onDisk;
        item.ino = listedIno(directory, onDisk);
        item.next = cookie(onDisk.next);
        return fn(item);
      });
  if (!done && done.error().code == ENOENT) return {};
  return done;
}

Status Tree::readOn(Inode& directory, const FormerListing& former, const DirectoryRef& now,
                    off_t from, const std::function<bool(const Item&)>& fn) {
  auto fd = cow_->base()->open(former.path, O_RDONLY | O_DIRECTORY);
  if (!fd) return Failure(fd.error());
  return DirectoryStream(std::move(*fd)).read(from, [&](const Item& onDisk) {
    // What has been removed since must not show.
    if (::faccessat(now.get(), onDisk.name, F_OK, AT_SYMLINK_NOFOLLOW) != 0) return true;
    Item item = onDisk;
    item.ino = listedIno(directory, onDisk);
    return fn(item);
  });
}

uint64_t Tree::listedIno(const Inode& directory, const Item& onDisk) const {
  if (std::strcmp(onDisk.name, "..") == 0) return parentIno(directory);
  return visibleIno(directory, onDisk.ino);
}

Status Tree::syncDirectory(Inode& directory) {
  const std::shared_lock lock(names_);
  const auto dir = openParent(directory);
  if (!dir && dir.error().code == ENOENT) return {};
  if (!dir) return Failure(dir.error());
  if (!dir->open().readable()) return {};
  if (::fsync(dir->get()) != 0) return fail(errno);
  return {};
}

}  // namespace kilnfs
