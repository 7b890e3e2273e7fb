#include "store/tree/tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <climits>

#include "store/tree/system.h"

namespace kilnfs {
namespace {

uint64_t saltOf(const std::string& key) {
  uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return mix64(hash);
}

}  // namespace

Tree::Tree(std::shared_ptr<Snapshot> snapshot, std::shared_ptr<Workspace> workspace,
           uint64_t outerIno)
    : snapshot_(std::move(snapshot)),
      workspace_(std::move(workspace)),
      place_(snapshot_ ? static_cast<const TreeRoot&>(*snapshot_) : *workspace_),
      cow_(workspace_ ? workspace_->cow() : nullptr),
      salt_(saltOf(place_.key())),
      outerIno_(outerIno) {}

Tree::~Tree() = default;

std::shared_ptr<Tree> Tree::create(std::shared_ptr<Snapshot> snapshot, uint64_t outerIno) {
  return std::shared_ptr<Tree>(new Tree(std::move(snapshot), nullptr, outerIno));
}

std::shared_ptr<Tree> Tree::create(std::shared_ptr<Workspace> workspace, uint64_t outerIno) {
  return std::shared_ptr<Tree>(new Tree(nullptr, std::move(workspace), outerIno));
}

Expected<Workspace::Change> Tree::beginChange() const {
  if (!workspace_) return fail(EROFS);
  auto change = workspace_->beginChange();
  if (!change) return fail(ESTALE);
  return std::move(*change);
}

Status Tree::refuseFrozen() const {
  if (frozen()) return fail(ESTALE);
  return {};
}

bool Tree::isRoot(const Inode& inode) const {
  const std::lock_guard lock(inodes_);
  return !inode.parent_ && !(inode.rare_ && inode.rare_->kept);
}

// -- inode numbers

uint64_t Tree::visibleIno(const BackingId& now) const {
  const BackingId backing = cow_ != nullptr ? cow_->origin(canonical(now)) : canonical(now);
  // Of the root the key is all that tells, so that it does not change with where the tree is kept.
  if (backing.dev == rootDev_ && backing.ino == rootIno_) return rootIno(place_.key());
  const uint64_t other = backing.dev == rootDev_ ? 0 : mix64(backing.dev);
  const uint64_t ino = mix64(backing.ino ^ salt_ ^ other);
  return ino != 0 ? ino : 1;  // 0 means "no entry" to readdir
}

uint64_t Tree::visibleIno(const Inode& parent, uint64_t ino) const {
  return visibleIno({ino, parent.backing().dev});
}

uint64_t Tree::rootIno(const std::string& key) {
  const uint64_t visible = mix64(saltOf(key));
  return visible != 0 ? visible : 1;
}

uint64_t Tree::parentIno(const Inode& directory) const {
  const std::lock_guard lock(inodes_);
  return directory.parent_ ? visibleIno(directory.parent_->backing()) : outerIno_;
}

struct stat Tree::seen(struct stat st, const Inode& inode) const {
  if (!S_ISDIR(st.st_mode)) {
    if (snapshot_ && st.st_nlink > 1) {
      st.st_nlink = snapshot_->linksInside(inode.backing()).value_or(1);
    }
    if (cow_ != nullptr) st.st_nlink = linksNow(st, inode);
  }
  if (cow_ != nullptr) {
    st.st_ctim = cow_->changeTime(inode.stub_ ? inode.backing() : backingId(st), st);
  }
  st.st_ino = visibleIno(inode.backing());
  return st;
}

// -- from inodes to files

bool Tree::locate(const Inode& inode, Location& at) const {
  // Collected from the leaf up, to the first directory that is still the snapshot's.
  std::vector<const Inode*> chain;
  const Inode* top = &inode;
  while (!top->stub_ && top->parent_) {
    chain.push_back(top);
    top = top->parent_.get();
  }
  if (top->rare_ && top->rare_->kept) return false;  // below a directory that was removed
  at.root = &place_;
  if (top->stub_) {
    const auto stub = cow_->stub(top->backing());
    if (!stub) return false;
    at.root = cow_->base().get();
    at.path = stub->path;
  }
  for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
    if (!at.path.empty()) at.path += '/';
    at.path += (*it)->name_.get();
  }
  return true;
}

std::vector<Tree::Location> Tree::locations(const Inode& inode) const {
  const std::lock_guard lock(inodes_);
  std::vector<Location> found;
  Location at;
  if (locate(inode, at)) found.push_back(std::move(at));
  if (!inode.rare_) return found;
  for (const Inode::Link& link : inode.rare_->links) {
    Location other;
    if (!locate(*link.parent, other)) continue;
    other.path = other.path.empty() ? link.name : other.path + "/" + link.name;
    found.push_back(std::move(other));
  }
  return found;
}

std::shared_ptr<UniqueFd> Tree::keptFd(const Inode& inode) const {
  const std::lock_guard lock(inodes_);
  return inode.rare_ ? inode.rare_->kept : nullptr;
}

bool Tree::standsFor(const Inode& inode, const struct stat& st) const {
  const BackingId found = backingId(st);
  if (inode.stub_) return found == cow_->origin(inode.backing());
  return canonical(found) == inode.backing();
}

namespace {

// Of an inode that is known: what is gone from the disk is not gone from the tree.
Error stale(Error error) {
  if (error.code == ENOENT || error.code == ENOTDIR) error.code = ESTALE;
  return error;
}

}  // namespace

Expected<Tree::Opened> Tree::asOpened(Expected<UniqueFd> fd) {
  if (!fd) return Failure(fd.error());
  Opened opened{std::move(*fd), {}};
  if (::fstat(opened.fd.get(), &opened.attributes) != 0) return fail(errno);
  return opened;
}

Expected<Tree::Opened> Tree::openBacking(const Inode& inode, int flags) const {
  if (const auto kept = keptFd(inode)) return asOpened(reopen(kept->get(), flags));
  if (changedElsewhere() && (flags & (O_PATH | O_DIRECTORY)) == 0) {
    // What has the name by now may be another file, which must not be cut, or a pipe, which waits
    // for somebody to open the other end: so not by name, but what was looked at.
    const auto found = openBacking(inode, O_PATH);
    if (!found) return Failure(found.error());
    if ((found->attributes.st_mode & S_IFMT) != inode.type()) return fail(ESTALE);
    return asOpened(reopen(found->fd.get(), flags));
  }
  if (auto found = openInParent(inode, flags)) return std::move(*found);
  // The names of a file that was replaced lead to the snapshot's file still: never those instead.
  if (auto replaced = openReplaced(inode, flags)) {
    if (!*replaced) return Failure(stale(std::move(replaced->error())));
    return asOpened(std::move(*replaced));
  }
  Opened opened;
  Error error{ESTALE, {}};
  for (const Location& at : locations(inode)) {
    auto fd = at.root->open(at.path, flags | O_NOFOLLOW);
    if (!fd) {
      error = std::move(fd.error());
      continue;
    }
    if (::fstat(fd->get(), &opened.attributes) != 0) return fail(errno);
    if (standsFor(inode, opened.attributes)) {
      opened.fd = std::move(*fd);
      if (inode.stub_) showPlaceholder(inode, opened.attributes);
      return opened;
    }
    error.code = ESTALE;  // somebody changed the store behind our back
  }
  return Failure(stale(std::move(error)));
}

Expected<DirectoryRef> Tree::openParent(const Inode& parent) const {
  if (!parent.isDirectory()) return fail(ENOTDIR);
  DirectoryCache& cache = DirectoryCache::ofProcess();
  if (auto open = cache.find(parent)) return DirectoryRef(std::move(open));
  if (keptFd(parent)) return fail(ENOENT);  // the directory was removed
  // Reading a result must not write to it, so also no access time.
  const int quiet = readOnly() ? O_NOATIME : 0;
  auto opened = openBacking(parent, O_RDONLY | O_DIRECTORY | quiet);
  if (!opened && quiet != 0 && opened.error().code == EPERM) {
    opened = openBacking(parent, O_RDONLY | O_DIRECTORY);
  }
  const bool readable = opened.has_value();
  if (!opened && opened.error().code == EACCES) opened = openBacking(parent, O_PATH | O_DIRECTORY);
  if (!opened) return Failure(opened.error());
  auto open = std::make_shared<OpenDirectory>(std::move(opened->fd), readable);
  // What others change is not for us to keep: it would also keep their file system.
  if (!changedElsewhere()) cache.put(parent, open);
  return DirectoryRef(std::move(open));
}

std::optional<std::pair<DirectoryRef, std::string>> Tree::placeOf(const Inode& inode) const {
  InodePtr parent;
  std::string name;
  {
    const std::lock_guard lock(inodes_);
    if (!inode.parent_ || inode.stub_ || (inode.rare_ && inode.rare_->kept)) return std::nullopt;
    parent = inode.parent_;
    name = inode.name_.get();
  }
  if (cow_ != nullptr && !inode.isDirectory() && cow_->group(inode.backing())) return std::nullopt;
  // Directories are opened by their path, else the parents of the parents would have to be as well.
  if (inode.isDirectory()) {
    auto open = DirectoryCache::ofProcess().find(*parent);
    if (!open) return std::nullopt;
    return std::pair(DirectoryRef(std::move(open)), std::move(name));
  }
  auto dir = openParent(*parent);
  if (!dir) return std::nullopt;
  return std::pair(std::move(*dir), std::move(name));
}

std::optional<Tree::Opened> Tree::openInParent(const Inode& inode, int flags) const {
  const auto place = placeOf(inode);
  if (!place) return std::nullopt;
  Opened opened;
  opened.fd.reset(
      ::openat(place->first.get(), place->second.c_str(), flags | O_NOFOLLOW | O_CLOEXEC));
  if (!opened.fd.valid() || ::fstat(opened.fd.get(), &opened.attributes) != 0 ||
      backingId(opened.attributes) != inode.backing()) {
    // By the path, then: what has that name here may only stand for what is elsewhere now.
    return std::nullopt;
  }
  return opened;
}

Expected<struct stat> Tree::statBacking(const Inode& inode) const {
  struct stat st;
  const auto place = placeOf(inode);
  if (place &&
      ::fstatat(place->first.get(), place->second.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
      backingId(st) == inode.backing()) {
    return st;
  }
  const auto opened = openBacking(inode, O_PATH);
  if (!opened) return Failure(opened.error());
  return opened->attributes;
}

}  // namespace kilnfs
