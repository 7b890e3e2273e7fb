// Copy on write in a workspace: making files its own before they are changed.

#include <fcntl.h>
#include <unistd.h>

#include <atomic>

#include "store/copy_node.h"
#include "store/group_copy.h"
#include "store/tree/keep_times.h"
#include "store/tree/system.h"
#include "store/tree/tree.h"

namespace kilnfs {
namespace {

std::string sideName(const std::string& prefix) {
  static std::atomic<uint64_t> next{1};
  return prefix + std::to_string(next++);
}

}  // namespace

Status Tree::ownFile(Inode& inode, std::optional<uint64_t> keep) {
  if (!isShared(inode)) return {};
  for (;;) {
    InodePtr parent;
    {
      const std::lock_guard lock(inodes_);
      parent = inode.parent_;
    }
    if (parent) {
      if (auto ok = ownDirectory(*parent); !ok) return ok;
    }
    const std::unique_lock lock(names_);
    {
      const std::lock_guard inodes(inodes_);
      if (parent != inode.parent_) continue;  // it was moved meanwhile
    }
    if (!isShared(inode)) return {};
    return copyUp(inode, keep);
  }
}

Status Tree::copyUp(Inode& inode, std::optional<uint64_t> keep) {
  const auto from = openBacking(inode, O_PATH);
  if (!from) return Failure(from.error());
  const int source = from->fd.get();
  const auto several = hasSeveralNames(inode.backing(), from->attributes);
  if (!several) return Failure(several.error());
  if (*several) return replaceGroup(inode.backing(), source, keep);
  if (keptFd(inode)) return copyUpUnnamed(inode, source, keep);
  const auto [sideFd, prefix] = place_.beside();
  const std::string side = sideName(prefix);
  if (auto ok = copyNode(source, sideFd, side, keep); !ok) return ok;
  InodePtr parent;
  std::string name;
  {
    const std::lock_guard lock(inodes_);
    parent = inode.parent_;
    name = inode.name_.get();
  }
  const struct timespec shown = changeTimeOf(inode, source);
  const auto dir = openParent(*parent);
  struct stat st = {};
  const auto made = openBeneath(sideFd, side, O_PATH | O_NOFOLLOW);
  Status ok;
  Expected<UniqueFd> forReaders;
  if (!dir || !made || ::fstat(made->get(), &st) != 0) {
    ok = fail(EIO);
  } else if (forReaders = openForReaders(inode, made->get()); !forReaders) {
    ok = Failure(forReaders.error());
  } else {
    const KeepTimes keepTimes(*cow_, dir->get());
    cow_->setOrigin(backingId(st), cow_->origin(inode.backing()));
    if (::renameat(sideFd, side.c_str(), dir->get(), name.c_str()) != 0 ||
        ::fstat(made->get(), &st) != 0) {
      ok = fail(errno);
    }
  }
  if (!ok) {
    ::unlinkat(sideFd, side.c_str(), 0);
    cow_->forget(backingId(st));  // or what is made next would be taken for it
    return ok;
  }
  moveReaders(inode, *forReaders);
  cow_->removeShared(inode.backing());
  cow_->keepChangeTime(backingId(st), shown, st);
  becomes(inode, backingId(st));
  return {};
}

/// Of a file of the snapshot: whether it has, or had, more names than one in this tree.
Expected<bool> Tree::hasSeveralNames(const BackingId& file, const struct stat& st) const {
  // Counting is a walk over the snapshot: only where the count on disk allows for a second name.
  const auto names = st.st_nlink > 1 ? cow_->base()->linksInside(file) : Expected<nlink_t>(1);
  if (!names) return Failure(names.error());
  return cow_->group(file).has_value() || *names > 1;
}

// All names of the file stand for the copy from now on, those below stubs too.
Status Tree::replaceGroup(const BackingId& file, int from, std::optional<uint64_t> keep) {
  const auto [sideFd, prefix] = place_.beside();
  auto group = copyForAllNames(from, sideFd, sideName(prefix), groupOf(file).links, keep);
  if (!group) return Failure(group.error());
  auto made = openBeneath(sideFd, group->file, O_PATH | O_NOFOLLOW);
  struct stat st;
  struct stat original;
  if (!made || ::fstat(made->get(), &st) != 0 || ::fstat(from, &original) != 0) {
    ::unlinkat(sideFd, group->file.c_str(), 0);
    return fail(EIO);
  }
  const InodePtr known = find(file);
  Expected<UniqueFd> forReaders;
  if (known) forReaders = openForReaders(*known, made->get());
  if (!forReaders) {
    ::unlinkat(sideFd, group->file.c_str(), 0);
    return Failure(forReaders.error());
  }
  if (known) moveReaders(*known, *forReaders);
  cow_->keepChangeTime(group->id, cow_->changeTime(file, original), st);
  cow_->setGroup(file, std::move(*group));
  if (known) {
    // Its own name may be gone, so that it is reached by what was kept of it.
    if (keptFd(*known)) hold(*known, std::make_shared<UniqueFd>(std::move(*made)));
  }
  return {};
}

// There are as many links to the snapshot's file as the file system allows. Its other names in this
// tree must not stay behind: all of them stand for the copy, and one more is a link to that.
Status Tree::linkToCopy(const BackingId& file, int from, int to, const std::string& name) {
  auto group = cow_->group(file);
  if (!group || !group->replaced()) {
    if (auto ok = replaceGroup(file, from, std::nullopt); !ok) return ok;
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

// It has no name any more, but somebody has it open and writes to it.
Status Tree::copyUpUnnamed(Inode& inode, int from, std::optional<uint64_t> keep) {
  const auto [sideFd, prefix] = place_.beside();
  const std::string side = sideName(prefix);
  if (auto ok = copyNode(from, sideFd, side, keep); !ok) return ok;
  auto made = openBeneath(sideFd, side, O_PATH | O_NOFOLLOW);
  ::unlinkat(sideFd, side.c_str(), 0);
  struct stat st;
  if (!made || ::fstat(made->get(), &st) != 0) return fail(EIO);
  const auto forReaders = openForReaders(inode, made->get());
  if (!forReaders) return Failure(forReaders.error());
  moveReaders(inode, *forReaders);
  cow_->setOrigin(backingId(st), cow_->origin(inode.backing()));
  cow_->keepChangeTime(backingId(st), changeTimeOf(inode, from), st);
  becomes(inode, backingId(st));
  hold(inode, std::make_shared<UniqueFd>(std::move(*made)));
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
