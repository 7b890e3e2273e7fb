// Copy on write in a workspace: making directories and files its own before they are changed.

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "store/base/directory_names.h"
#include "store/copy_node.h"
#include "store/tree/system.h"
#include "store/tree/tree.h"

namespace kilnfs {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

std::string sideName(const std::string& prefix) {
  static std::atomic<uint64_t> next{1};
  return prefix + std::to_string(next++);
}

/// Puts a directory's times back: making what is in it own is no change that anybody asked for.
class KeepTimes {
 public:
  KeepTimes(CopyOnWrite& cow, int fd) : cow_(cow), fd_(fd) { ok_ = ::fstat(fd, &st_) == 0; }
  ~KeepTimes() {
    if (!ok_) return;
    const struct timespec shown = cow_.changeTime(backingId(st_), st_);
    const struct timespec times[2] = {st_.st_atim, st_.st_mtim};
    ::utimensat(fd_, "", times, AT_EMPTY_PATH);
    struct stat now;
    if (::fstat(fd_, &now) == 0) cow_.keepChangeTime(backingId(now), shown, now);
  }
  KeepTimes(const KeepTimes&) = delete;
  KeepTimes& operator=(const KeepTimes&) = delete;

 private:
  CopyOnWrite& cow_;
  const int fd_;
  struct stat st_ = {};
  bool ok_ = false;
};

}  // namespace

bool Tree::isOwn(const Inode& directory) const {
  return cow_ == nullptr || !belowStub(directory);
}

bool Tree::isShared(const Inode& file) const {
  if (cow_ == nullptr || file.isDirectory()) return false;
  if (const auto group = cow_->group(file.backing())) return group->file.empty();
  if (cow_->isShared(file.backing())) return true;
  return belowStub(file);
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
  group.links = cow_->base()->linksInside(file);
  return group;
}

nlink_t Tree::linksNow(const struct stat& st, const Inode& inode) const {
  if (const auto group = cow_->group(inode.backing())) return group->links;
  const bool unlinked = keptFd(inode) != nullptr;
  if (st.st_nlink <= 1 && !unlinked) return st.st_nlink;
  if (!isShared(inode)) return st.st_nlink;
  // Unlinked: the names that are left are the snapshot's.
  return unlinked ? 0 : cow_->base()->linksInside(inode.backing());
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

// -- directories

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
  Status ok;
  {
    const KeepTimes keep(*cow_, to->get());
    ok = fillFrom(from->get(), to->get(), stub->path, inode);
  }
  if (ok && !stub->ownAttributes) ok = showAs(inode.backing(), from->get(), to->get());
  if (!ok) return ok;
  cow_->removeStub(inode.backing());
  DirectoryCache::ofProcess().drop(inode);
  const std::lock_guard lock(inodes_);
  inode.stub_ = false;
  return {};
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

Status Tree::fillFrom(int from, int to, const std::string& path, Inode& inode) {
  const std::unique_ptr<DIR, CloseDir> dir(::fdopendir(::fcntl(from, F_DUPFD_CLOEXEC, 0)));
  if (!dir) return fail(errno);
  Status ok;
  std::vector<std::pair<std::string, bool>> made;  // and whether it is a directory
  std::vector<off_t> cookies;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    // Not the end, if it can't be read: what is missing would be missing in the result.
    if (entry == nullptr && errno != 0) ok = fail(errno);
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    cookies.push_back(entry->d_off);
    if (name == "." || name == "..") continue;
    bool directory = entry->d_type == DT_DIR;
    struct stat st;
    if (entry->d_type == DT_UNKNOWN) {
      if (::fstatat(from, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        ok = fail(errno);
        break;
      }
      directory = S_ISDIR(st.st_mode);
    }
    ok = directory ? shareDirectory(from, to, path.empty() ? name : path + "/" + name, name, inode)
                   : shareFile(from, to, name);
    if (!ok) break;
    made.emplace_back(name, directory);
  }
  if (ok) {
    rememberListing(inode, path, std::move(cookies));
    return {};
  }
  // Still a stub, then, and empty again: the links are only links, and nobody has seen them. What
  // was recorded of its subdirectories refers to directories that are gone.
  for (const auto& [name, directory] : made) {
    ::unlinkat(to, name.c_str(), directory ? AT_REMOVEDIR : 0);
  }
  return ok;
}

Status Tree::shareDirectory(int from, int to, const std::string& path, const std::string& name,
                            const Inode& inode) {
  struct stat found;
  struct stat placeholder;
  if (::fstatat(from, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) return fail(errno);
  const BackingId original = cow_->base()->standsFor(backingId(found));
  if (::mkdirat(to, name.c_str(), 0700) != 0) return fail(errno);
  if (::fstatat(to, name.c_str(), &placeholder, AT_SYMLINK_NOFOLLOW) != 0) return fail(errno);
  cow_->addStub(backingId(placeholder), {path, false}, original);
  cow_->showChangeTime(backingId(placeholder), found.st_ctim);
  const InodePtr known = find(original);
  if (!known) return {};
  becomes(*known, backingId(placeholder));
  const std::lock_guard lock(inodes_);
  // The directory may have a name elsewhere only if the store was changed behind our back.
  if (known->parent_.get() == &inode) known->stub_ = true;
  return {};
}

Status Tree::shareFile(int from, int to, const std::string& name) {
  struct stat st;
  if (::fstatat(from, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return fail(errno);
  if (::linkat(from, name.c_str(), to, name.c_str(), 0) == 0) {
    cow_->addShared(backingId(st));
    cow_->showChangeTime(backingId(st), st.st_ctim);
    return {};
  }
  if (errno != EMLINK && errno != EPERM && errno != EACCES) return fail(errno);
  // Too many links, or none allowed (protected_hardlinks): an own file from the start.
  const auto source = openBeneath(from, name, O_PATH | O_NOFOLLOW);
  if (!source) return Failure(source.error());
  if (auto ok = copyNode(source->get(), to, name); !ok) return ok;
  struct stat copy;
  if (::fstatat(to, name.c_str(), &copy, AT_SYMLINK_NOFOLLOW) != 0) return fail(errno);
  cow_->setOrigin(backingId(copy), backingId(st));
  cow_->keepChangeTime(backingId(copy), st.st_ctim, copy);
  if (const InodePtr known = find(backingId(st))) {
    const auto fd = openBeneath(to, name, O_PATH | O_NOFOLLOW);
    becomes(*known, backingId(copy));
    if (fd) moveReaders(*known, fd->get());
  }
  return {};
}

// -- files

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
  if (auto ok = from->attributes.st_nlink > 1 ? cow_->base()->countLinks() : Status(); !ok) {
    return ok;
  }
  const bool grouped = cow_->group(inode.backing()).has_value() ||
                       (from->attributes.st_nlink > 1 && groupOf(inode.backing()).links > 1);
  if (grouped) return replaceGroup(inode, source, keep);
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
  struct stat st;
  const auto made = openBeneath(sideFd, side, O_PATH | O_NOFOLLOW);
  Status ok;
  if (!dir || !made || ::fstat(made->get(), &st) != 0) {
    ok = fail(EIO);
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
    return ok;
  }
  cow_->removeShared(inode.backing());
  cow_->keepChangeTime(backingId(st), shown, st);
  becomes(inode, backingId(st));
  moveReaders(inode, made->get());
  return {};
}

// All names of the file stand for the copy from now on, those below stubs too.
Status Tree::replaceGroup(Inode& inode, int from, std::optional<uint64_t> keep) {
  auto group = groupOf(inode.backing());
  const auto [sideFd, prefix] = place_.beside();
  group.file = sideName(prefix);
  if (auto ok = copyNode(from, sideFd, group.file, keep); !ok) return ok;
  const auto made = openBeneath(sideFd, group.file, O_PATH | O_NOFOLLOW);
  struct stat st;
  if (!made || ::fstat(made->get(), &st) != 0) return fail(EIO);
  group.id = backingId(st);
  cow_->keepChangeTime(group.id, changeTimeOf(inode, from), st);
  cow_->setGroup(inode.backing(), std::move(group));
  moveReaders(inode, made->get());
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
  cow_->setOrigin(backingId(st), cow_->origin(inode.backing()));
  cow_->keepChangeTime(backingId(st), changeTimeOf(inode, from), st);
  becomes(inode, backingId(st));
  moveReaders(inode, made->get());
  const std::lock_guard lock(inodes_);
  inode.rare_->kept = std::make_shared<UniqueFd>(std::move(*made));
  return {};
}

Expected<UniqueFd> Tree::openReplaced(const Inode& inode, int flags) const {
  if (cow_ == nullptr || inode.isDirectory()) return fail(ENOENT);
  const auto group = cow_->group(inode.backing());
  if (!group || group->file.empty()) return fail(ENOENT);
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

void Tree::addReader(Inode& inode, File* file) {
  const std::lock_guard lock(inodes_);
  if (!inode.rare_) inode.rare_ = std::make_unique<Inode::Rare>();
  inode.rare_->readers.push_back(file);
}

void Tree::removeReader(Inode& inode, File* file) {
  const std::lock_guard lock(inodes_);
  if (inode.rare_) std::erase(inode.rare_->readers, file);
}

// Who had the file open before the first write sees the write: the same descriptor number is made
// to stand for the copy, in one step, so that no read falls between the two.
void Tree::moveReaders(Inode& inode, int to) {
  const std::lock_guard lock(inodes_);
  if (!inode.rare_ || inode.rare_->readers.empty()) return;
  const auto fd = reopen(to, O_RDONLY);
  if (!fd) return;
  for (const File* file : inode.rare_->readers) ::dup3(fd->get(), file->fd(), O_CLOEXEC);
  inode.rare_->readers.clear();
}

}  // namespace kilnfs
