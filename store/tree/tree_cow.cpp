// Copy on write in a workspace: making directories its own before something in them is changed.

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "store/base/directory_names.h"
#include "store/copy_node.h"
#include "store/tree/keep_times.h"
#include "store/tree/system.h"
#include "store/tree/tree.h"

namespace kilnfs {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

}  // namespace

bool Tree::isOwn(const Inode& directory) const {
  return cow_ == nullptr || !belowStub(directory);
}

bool Tree::isShared(const Inode& file) const {
  if (cow_ == nullptr || file.isDirectory()) return false;
  // Asked first: without a lock on the names, the stub may be filled meanwhile, and its files are
  // recorded as shared before it stops being one.
  const bool below = belowStub(file);
  if (const auto group = cow_->group(file.backing())) return !group->replaced();
  return below || cow_->isShared(file.backing());
}

bool Tree::belowStub(const Inode& inode) const {
  const std::lock_guard lock(inodes_);
  for (const Inode* at = &inode; at != nullptr; at = at->parent_.get()) {
    if (at->stub_) return true;
  }
  return false;
}

struct timespec Tree::changeTimeOf(const Inode& inode, int fd) const {
  struct stat st = {};
  ::fstat(fd, &st);
  return cow_->changeTime(inode.backing(), st);
}

CopyOnWrite::Group Tree::groupOf(const BackingId& file) const {
  if (auto group = cow_->group(file)) return *group;
  CopyOnWrite::Group group;
  group.links = cow_->base()->linksInside(file).value_or(1);
  return group;
}

nlink_t Tree::linksNow(const struct stat& st, const Inode& inode) const {
  if (const auto group = cow_->group(inode.backing())) return group->links;
  const bool unlinked = keptFd(inode) != nullptr;
  if (st.st_nlink <= 1 && !unlinked) return st.st_nlink;
  if (!isShared(inode)) return st.st_nlink;
  // Unlinked: the names that are left are the snapshot's.
  return unlinked ? 0 : cow_->base()->linksInside(inode.backing()).value_or(1);
}

void Tree::countName(const Inode* inode, const struct stat& st, int change) {
  if (cow_ == nullptr || S_ISDIR(st.st_mode)) return;
  const BackingId file = canonical(backingId(st));
  const bool shared = inode != nullptr ? isShared(*inode) : cow_->isShared(file);
  auto group = groupOf(file);
  if (!cow_->group(file) && (!shared || group.links < 2)) return;
  group.links = static_cast<nlink_t>(static_cast<int64_t>(group.links) + change);
  cow_->setGroup(file, std::move(group));
}

Expected<UniqueFd> Tree::openPlaceholder(const Inode& inode, int flags) const {
  Location at{&place_, {}};
  {
    const std::lock_guard lock(inodes_);
    if (inode.parent_ && !locate(*inode.parent_, at)) return fail(ENOENT);
    if (inode.parent_) {
      at.path = at.path.empty() ? inode.name_.get() : at.path + "/" + inode.name_.get();
    }
  }
  return at.root->open(at.path, flags | O_NOFOLLOW);
}

void Tree::showPlaceholder(const Inode& inode, struct stat& st) const {
  const auto stub = cow_->stub(inode.backing());
  if (!stub || !stub->ownAttributes) return;
  const auto fd = openPlaceholder(inode, O_PATH);
  struct stat own;
  if (!fd || ::fstat(fd->get(), &own) != 0) return;
  own.st_nlink = st.st_nlink;
  own.st_size = st.st_size;
  st = own;
}

Status Tree::refuseFullStub(const struct stat& st) const {
  if (cow_ == nullptr || !S_ISDIR(st.st_mode)) return {};
  const auto stub = cow_->stub(backingId(st));
  if (!stub) return {};
  auto fd = cow_->base()->open(stub->path, O_RDONLY | O_DIRECTORY);
  if (!fd) return Failure(fd.error());
  auto empty = isEmptyDirectory(fd->get());
  if (!empty) return Failure(empty.error());
  return *empty ? Status() : Status(fail(ENOTEMPTY));
}

Status Tree::ownDirectory(Inode& inode) {
  if (isOwn(inode)) return {};
  const std::unique_lock lock(names_);
  std::vector<InodePtr> chain;
  {
    const std::lock_guard inodes(inodes_);
    for (Inode* at = &inode; at != nullptr; at = at->parent_.get()) chain.emplace_back(at);
  }
  // From the top: a directory below a stub becomes one when its parent is made own.
  for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
    if (!(*it)->stub_) continue;
    if (auto ok = fillStub(**it); !ok) return ok;
  }
  return {};
}

Status Tree::fillStub(Inode& inode) {
  const auto stub = cow_->stub(inode.backing());
  if (!stub) return fail(EIO);
  auto from = cow_->base()->open(stub->path, O_RDONLY | O_DIRECTORY);
  if (!from) return Failure(from.error());
  const auto to = openPlaceholder(inode, O_RDONLY | O_DIRECTORY);
  if (!to) return Failure(to.error());
  Filled filled;
  Status ok;
  {
    const KeepTimes keep(*cow_, to->get());
    ok = fillFrom(from->get(), to->get(), stub->path, filled);
  }
  if (ok && !stub->ownAttributes) ok = showAs(inode.backing(), from->get(), to->get());
  if (!ok) {
    emptyAgain(to->get(), filled);
    return ok;
  }
  for (const Filled::Name& made : filled.names) followTo(made, inode);
  rememberListing(inode, stub->path, std::move(filled.cookies));
  cow_->removeStub(inode.backing());
  DirectoryCache::ofProcess().drop(inode);
  const std::lock_guard lock(inodes_);
  inode.stub_ = false;
  return {};
}

// Still a stub, then: the links are only links, and nobody has seen what was made. The file system
// gives the numbers of what is removed to what is made next, which must not be taken for it.
void Tree::emptyAgain(int to, const Filled& filled) {
  const KeepTimes keep(*cow_, to);
  for (const Filled::Name& made : filled.names) {
    ::unlinkat(to, made.name.c_str(), made.directory ? AT_REMOVEDIR : 0);
    if (made.now != made.original) cow_->forget(made.now);
  }
}

// An inode that is known as the snapshot's is from now on what was made for it.
void Tree::followTo(const Filled::Name& made, const Inode& parent) {
  if (made.now == made.original) return;
  const InodePtr known = find(made.original);
  if (!known) return;
  moveReaders(*known, made.forReaders);
  becomes(*known, made.now);
  if (made.directory) {
    const std::lock_guard lock(inodes_);
    // The directory may have a name elsewhere only if the store was changed behind our back.
    if (known->parent_.get() == &parent) known->stub_ = true;
  }
}

// `to`, which was the stub `id`, gets the attributes of the snapshot's directory.
Status Tree::showAs(const BackingId& id, int from, int to) {
  if (auto ok = copyAttributes(from, to); !ok) return ok;
  struct stat original;
  struct stat now;
  if (::fstat(from, &original) != 0 || ::fstat(to, &now) != 0) return fail(errno);
  cow_->keepChangeTime(id, cow_->changeTime(id, original), now);
  return {};
}

Status Tree::fillFrom(int from, int to, const std::string& path, Filled& filled) {
  const std::unique_ptr<DIR, CloseDir> dir(::fdopendir(::fcntl(from, F_DUPFD_CLOEXEC, 0)));
  if (!dir) return fail(errno);
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    // Not the end, if it can't be read: what is missing would be missing in the result.
    if (entry == nullptr) return errno != 0 ? Status(fail(errno)) : Status();
    const std::string name = entry->d_name;
    filled.cookies.push_back(entry->d_off);
    if (name == "." || name == "..") continue;
    bool directory = entry->d_type == DT_DIR;
    struct stat st;
    if (entry->d_type == DT_UNKNOWN) {
      if (::fstatat(from, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return fail(errno);
      }
      directory = S_ISDIR(st.st_mode);
    }
    auto made = directory ? shareDirectory(from, to, path.empty() ? name : path + "/" + name, name)
                          : shareFile(from, to, name);
    if (!made) return Failure(made.error());
    filled.names.push_back(std::move(*made));
  }
}

Expected<Tree::Filled::Name> Tree::shareDirectory(int from, int to, const std::string& path,
                                                  const std::string& name) {
  struct stat found;
  struct stat placeholder;
  if (::fstatat(from, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) return fail(errno);
  const BackingId original = cow_->base()->standsFor(backingId(found));
  if (::mkdirat(to, name.c_str(), 0700) != 0) return fail(errno);
  if (::fstatat(to, name.c_str(), &placeholder, AT_SYMLINK_NOFOLLOW) != 0) {
    return undone(to, name, AT_REMOVEDIR);
  }
  cow_->addStub(backingId(placeholder), {path, false}, original);
  cow_->showChangeTime(backingId(placeholder), found.st_ctim);
  return Filled::Name{name, true, original, backingId(placeholder), {}};
}

Expected<Tree::Filled::Name> Tree::shareFile(int from, int to, const std::string& name) {
  struct stat st;
  if (::fstatat(from, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return fail(errno);
  const BackingId original = backingId(st);
  Filled::Name link{name, false, original, original, {}};
  if (::linkat(from, name.c_str(), to, name.c_str(), 0) == 0) {
    cow_->addShared(original);
    cow_->showChangeTime(original, st.st_ctim);
    return link;
  }
  if (errno != EMLINK && errno != EPERM && errno != EACCES) return fail(errno);
  // Too many links, or none allowed (protected_hardlinks): an own file from the start.
  const auto source = openBeneath(from, name, O_PATH | O_NOFOLLOW);
  if (!source) return Failure(source.error());
  const auto several = hasSeveralNames(original, st);
  if (!several) return Failure(several.error());
  if (*several) {
    if (auto ok = linkToCopy(original, source->get(), to, name); !ok) return Failure(ok.error());
    return link;
  }
  if (auto ok = copyNode(source->get(), to, name); !ok) return Failure(ok.error());
  auto copied = followCopy(to, name, st);
  if (!copied) ::unlinkat(to, name.c_str(), 0);
  return copied;
}

/// Of a copy in `to` of the snapshot's file that `st` is of.
Expected<Tree::Filled::Name> Tree::followCopy(int to, const std::string& name,
                                              const struct stat& st) {
  const BackingId original = backingId(st);
  const auto made = openBeneath(to, name, O_PATH | O_NOFOLLOW);
  if (!made) return Failure(made.error());
  struct stat copy;
  if (::fstat(made->get(), &copy) != 0) return fail(errno);
  const InodePtr known = find(original);
  Expected<UniqueFd> forReaders;
  if (known) forReaders = openForReaders(*known, made->get());
  if (!forReaders) return Failure(forReaders.error());
  cow_->setOrigin(backingId(copy), original);
  cow_->keepChangeTime(backingId(copy), st.st_ctim, copy);
  return Filled::Name{name, false, original, backingId(copy), std::move(*forReaders)};
}

}  // namespace kilnfs
