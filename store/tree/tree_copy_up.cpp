// Copy on write in a workspace: making files its own before they are changed.

#include <fcntl.h>
#include <unistd.h>

#include "store/tree/keep_times.h"
#include "store/tree/system.h"
#include "store/tree/tree.h"

namespace kilnfs {

// Copying can take long, and all requests of the mount may come to wait for names_. The snapshot's
// file does not change, so it is copied without that lock; whose copy comes too late drops it.
Status Tree::ownFile(Inode& inode, Cut* cut) {
  std::optional<Opened> from;
  std::optional<SideCopy> copy;
  while (isShared(inode)) {
    InodePtr parent;
    {
      const std::lock_guard lock(inodes_);
      parent = inode.parent_;
    }
    if (parent) {
      if (auto ok = ownDirectory(*parent); !ok) return ok;
    }
    if (!copy) {
      auto opened = openShared(inode);
      if (!opened) return Failure(opened.error());
      if (!isShared(inode)) break;  // it may be somebody's copy that was opened
      from = std::move(*opened);
      // Counted now, if not before: that is a walk over the snapshot.
      const auto several = hasSeveralNames(inode.backing(), from->attributes);
      if (!several) return Failure(several.error());
      auto made = copyAside(from->fd.get(), cut);
      if (!made) return Failure(made.error());
      copy.emplace(std::move(*made));
    }
    const std::unique_lock lock(names_);
    {
      const std::lock_guard inodes(inodes_);
      if (parent != inode.parent_) continue;  // it was moved meanwhile
    }
    if (isShared(inode)) return copyUp(inode, *from, std::move(*copy));
  }
  if (cut != nullptr) cut->fd.reset();  // somebody else's copy came first
  return {};
}

Expected<Tree::Opened> Tree::openShared(const Inode& file) const {
  const std::shared_lock lock(names_);
  return openBacking(file, O_PATH);
}

Expected<SideCopy> Tree::copyAside(int from, Cut* cut) const {
  auto copy =
      SideCopy::make(from, place_, cut != nullptr ? std::optional(cut->keep) : std::nullopt);
  if (!copy || cut == nullptr) return copy;
  auto fd = reopen(copy->fd(), cut->flags);
  if (!fd) return Failure(fd.error());
  cut->fd = std::move(*fd);
  return copy;
}

// Of a file that is shared. With names_ held exclusively.
Status Tree::copyUp(Inode& inode, const Opened& from, SideCopy copy) {
  const auto several = hasSeveralNames(inode.backing(), from.attributes);
  if (!several) return Failure(several.error());
  if (*several) return replaceGroup(inode.backing(), from.fd.get(), std::move(copy));
  const auto forReaders = openForReaders(inode, copy.fd());
  if (!forReaders) return Failure(forReaders.error());
  const BackingId id = copy.id();
  const struct timespec shown = changeTimeOf(inode, from.fd.get());
  cow_->setOrigin(id, cow_->origin(inode.backing()));
  // It may have no name any more, while somebody has it open and writes to it.
  const bool named = keptFd(inode) == nullptr;
  if (!named) copy.remove();
  if (auto ok = named ? putInPlace(inode, copy) : Status(); !ok) {
    cow_->forget(id);  // before something else can have that number
    return ok;
  }
  moveReaders(inode, *forReaders);
  if (named) cow_->removeShared(inode.backing());
  cow_->keepChangeTime(id, shown, copy.attributes());
  becomes(inode, id);
  if (!named) hold(inode, std::make_shared<UniqueFd>(copy.takeFd()));
  return {};
}

Status Tree::putInPlace(const Inode& inode, SideCopy& copy) {
  InodePtr parent;
  std::string name;
  {
    const std::lock_guard lock(inodes_);
    parent = inode.parent_;
    name = inode.name_.get();
  }
  const auto dir = openParent(*parent);
  if (!dir) return Failure(dir.error());
  const KeepTimes keepTimes(*cow_, dir->get());
  return copy.moveTo(dir->get(), name);
}

/// Of a file of the snapshot: whether it has, or had, more names than one in this tree.
Expected<bool> Tree::hasSeveralNames(const BackingId& file, const struct stat& st) const {
  // Counting is a walk over the snapshot: only where the count on disk allows for a second name.
  const auto names = st.st_nlink > 1 ? cow_->base()->linksInside(file) : Expected<nlink_t>(1);
  if (!names) return Failure(names.error());
  return cow_->group(file).has_value() || *names > 1;
}

// All names of the file stand for the copy from now on, those below stubs too.
Status Tree::replaceGroup(const BackingId& file, int from, SideCopy copy) {
  struct stat original;
  if (::fstat(from, &original) != 0) return fail(errno);
  const InodePtr known = find(file);
  Expected<UniqueFd> forReaders;
  if (known) forReaders = openForReaders(*known, copy.fd());
  if (!forReaders) return Failure(forReaders.error());
  if (known) moveReaders(*known, *forReaders);
  const BackingId id = copy.id();
  cow_->keepChangeTime(id, cow_->changeTime(file, original), copy.attributes());
  cow_->setGroup(file, {copy.keep(), id, groupOf(file).links});
  if (known) {
    // Its own name may be gone, so that it is reached by what was kept of it.
    if (keptFd(*known)) hold(*known, std::make_shared<UniqueFd>(copy.takeFd()));
  }
  return {};
}

// There are as many links to the snapshot's file as the file system allows. Its other names in this
// tree must not stay behind: all of them stand for the copy, and one more is a link to that.
Status Tree::linkToCopy(const BackingId& file, int from, int to, const std::string& name) {
  auto group = cow_->group(file);
  if (!group || !group->replaced()) {
    auto copy = copyAside(from, nullptr);
    if (!copy) return Failure(copy.error());
    if (auto ok = replaceGroup(file, from, std::move(*copy)); !ok) return ok;
    group = cow_->group(file);
  }
  const int sideFd = place_.beside().first;
  struct stat before;
  struct stat after;
  if (::fstatat(sideFd, group->file.c_str(), &before, AT_SYMLINK_NOFOLLOW) != 0 ||
      ::linkat(sideFd, group->file.c_str(), to, name.c_str(), 0) != 0) {
    return fail(errno);
  }
  if (::fstatat(to, name.c_str(), &after, AT_SYMLINK_NOFOLLOW) != 0) return undone(to, name);
  cow_->keepChangeTime(group->id, cow_->changeTime(group->id, before), after);
  return {};
}

std::optional<Expected<UniqueFd>> Tree::openReplaced(const Inode& inode, int flags) const {
  if (cow_ == nullptr || inode.isDirectory()) return std::nullopt;
  const auto group = cow_->group(inode.backing());
  if (!group || !group->replaced()) return std::nullopt;
  return openBeneath(place_.beside().first, group->file, flags | O_NOFOLLOW);
}

void Tree::becomes(Inode& inode, const BackingId& now) {
  const std::lock_guard lock(inodes_);
  const bool known = known_.find(inode.backing()) == &inode;
  if (known) known_.erase(inode.backing());
  inode.ino_.store(now.ino, std::memory_order_relaxed);
  if (!known) return;
  // Whatever had that number before has been replaced behind our back.
  known_.erase(now);
  known_.insert(&inode);
}

// What moveReaders() takes, of the copy `to`: opened while the copy can still be given up. Not
// valid if nobody has the file open.
Expected<UniqueFd> Tree::openForReaders(const Inode& inode, int to) const {
  const std::lock_guard lock(inodes_);
  if (!inode.rare_ || inode.rare_->open.empty()) return UniqueFd();
  return reopen(to, O_RDONLY);
}

// Who had the file open before the first write sees the write: the same descriptor number is made
// to stand for the copy, in one step, so that no read falls between the two. Called before the file
// counts as own: from then on the kernel may be given its descriptor to read, and write, by itself.
void Tree::moveReaders(Inode& inode, const UniqueFd& copy) {
  const std::lock_guard lock(inodes_);
  if (!copy.valid() || !inode.rare_) return;
  for (const File* file : inode.rare_->open) ::dup3(copy.get(), file->fd(), O_CLOEXEC);
  inode.rare_->open.clear();
}

}  // namespace kilnfs
