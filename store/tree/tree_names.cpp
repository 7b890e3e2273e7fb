// Names of a tree: looking up, making, moving, removing; and which inode has which.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "store/tree/system.h"
#include "store/tree/tree.h"

namespace kilnfs {

// -- which inode has which names

BackingId Tree::canonical(const BackingId& id) const {
  if (cow_ != nullptr) return cow_->canonical(id);
  return snapshot_ ? snapshot_->standsFor(id) : id;
}

InodePtr Tree::find(const BackingId& id) {
  const BackingId backing = canonical(id);
  const std::lock_guard lock(inodes_);
  return InodePtr(known_.find(backing));
}

InodePtr Tree::intern(const struct stat& st, Inode* parent, const std::string& name, bool made) {
  const BackingId backing = canonical(backingId(st));
  const mode_t type = st.st_mode & S_IFMT;
  // Dropped after the lock: releasing an inode takes it.
  InodePtr found;
  InodePtr formerParent;
  std::shared_ptr<UniqueFd> kept;
  const std::lock_guard lock(inodes_);
  Inode* const known = known_.find(backing);
  if (known != nullptr && known->type_ == type && (!made || hasName(*known, parent, name))) {
    found = known;
    if (parent == nullptr) return found;
    if (found->rare_) kept = std::move(found->rare_->kept);  // it has a name again
    // A directory has one name: another one means that it was moved behind our back.
    if (found->isDirectory() && (found->parent_ != parent || name != found->name_.get())) {
      formerParent = std::move(found->parent_);
    }
    addName(*found, *parent, name);
    return found;
  }
  // Another file: the one that is known was replaced behind our back, and its number used again.
  if (known != nullptr) known_.erase(backing);
  found = new Inode(shared_from_this(), backing, type);
  found->incapable_ = made && !changedElsewhere();
  found->stub_ = cow_ != nullptr && S_ISDIR(type) && cow_->stub(backing).has_value();
  known_.insert(found.get());
  if (parent != nullptr) addName(*found, *parent, name);
  return found;
}

bool Tree::hasName(const Inode& inode, const Inode* parent, const std::string& name) {
  if (!inode.parent_ || parent == nullptr) return false;
  if (inode.parent_ == parent && name == inode.name_.get()) return true;
  return inode.rare_ && std::any_of(inode.rare_->links.begin(), inode.rare_->links.end(),
                                    [&](const Inode::Link& link) {
                                      return link.parent == parent && link.name == name;
                                    });
}

void Tree::addName(Inode& inode, Inode& parent, const std::string& name) {
  if (!inode.parent_) {
    inode.parent_ = &parent;
    inode.name_ = std::make_unique<char[]>(name.size() + 1);
    std::memcpy(inode.name_.get(), name.c_str(), name.size() + 1);
    return;
  }
  if (hasName(inode, &parent, name)) return;
  if (!inode.rare_) inode.rare_ = std::make_unique<Inode::Rare>();
  inode.rare_->links.push_back({&parent, name});
}

bool Tree::isLastName(const Inode& inode, const Inode& parent, const std::string& name) const {
  const std::lock_guard lock(inodes_);
  return (!inode.rare_ || inode.rare_->links.empty()) && inode.parent_ == &parent &&
         name == inode.name_.get();
}

void Tree::removeName(Inode& inode, const Inode& parent, const std::string& name,
                      std::shared_ptr<UniqueFd> kept) {
  InodePtr dropped;  // after the lock
  const std::lock_guard lock(inodes_);
  if (inode.parent_ == &parent && name == inode.name_.get()) {
    dropped = std::move(inode.parent_);
    inode.name_.reset();
    if (inode.rare_ && !inode.rare_->links.empty()) {
      Inode::Link next = std::move(inode.rare_->links.back());
      inode.rare_->links.pop_back();
      addName(inode, *next.parent, next.name);
      next.parent.detach()->refs_.fetch_sub(1);  // addName holds it
    }
  } else if (inode.rare_) {
    auto& links = inode.rare_->links;
    const auto it = std::find_if(links.begin(), links.end(), [&](const Inode::Link& link) {
      return link.parent == &parent && link.name == name;
    });
    if (it != links.end()) {
      dropped = std::move(it->parent);
      links.erase(it);
    }
  }
  if (kept && !inode.parent_) holdLocked(inode, std::move(kept));
}

void Tree::hold(Inode& inode, std::shared_ptr<UniqueFd> fd) {
  const std::lock_guard lock(inodes_);
  holdLocked(inode, std::move(fd));
}

void Tree::holdLocked(Inode& inode, std::shared_ptr<UniqueFd> fd) {
  if (!inode.rare_) inode.rare_ = std::make_unique<Inode::Rare>();
  inode.rare_->kept = std::move(fd);
}

Expected<std::shared_ptr<UniqueFd>> Tree::keepIfLast(const InodePtr& inode, int parentFd,
                                                     const Inode& parent,
                                                     const std::string& name) const {
  if (!inode || !isLastName(*inode, parent, name)) return nullptr;
  auto replaced = openReplaced(*inode, O_PATH);
  auto fd = replaced ? std::move(*replaced) : openBeneath(parentFd, name, O_PATH | O_NOFOLLOW);
  if (!fd) return Failure(fd.error());
  return std::make_shared<UniqueFd>(std::move(*fd));
}

size_t Tree::knownInodes() const {
  const std::lock_guard lock(inodes_);
  return known_.size();
}

// -- looking up

Expected<Tree::Entry> Tree::root() {
  if (auto ok = refuseFrozen(); !ok) return Failure(ok.error());
  const std::shared_lock lock(names_);
  const auto fd = place_.open("", O_PATH | O_DIRECTORY);
  if (!fd) return Failure(fd.error());
  struct stat st;
  if (::fstat(fd->get(), &st) != 0) return fail(errno);
  rootDev_ = backingId(st).dev;
  rootIno_ = cow_ != nullptr ? cow_->origin(canonical(backingId(st))).ino : st.st_ino;
  Entry entry{intern(st, nullptr, {}), {}};
  if (entry.inode->stub_) {
    const auto opened = openBacking(*entry.inode, O_PATH);
    if (!opened) return Failure(opened.error());
    st = opened->attributes;
  }
  entry.attributes = seen(st, *entry.inode);
  return entry;
}

Expected<Tree::Entry> Tree::enter(int parentFd, Inode& parent, const std::string& name) {
  struct stat st;
  if (::fstatat(parentFd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return fail(errno);
  Entry entry{intern(st, &parent, name), {}};
  if (entry.inode->stub_ || backingId(st) != entry.inode->backing() ||
      (cow_ != nullptr && cow_->group(entry.inode->backing()))) {
    // What it stands for is elsewhere.
    const auto opened = openBacking(*entry.inode, O_PATH);
    if (!opened) return Failure(opened.error());
    st = opened->attributes;
  }
  entry.attributes = seen(st, *entry.inode);
  return entry;
}

Expected<Tree::Entry> Tree::lookup(Inode& parent, const std::string& name) {
  if (!plainName(name)) return fail(EINVAL);
  if (auto ok = refuseFrozen(); !ok) return Failure(ok.error());
  const std::shared_lock lock(names_);
  const auto dir = openParent(parent);
  if (!dir) return Failure(dir.error());
  return enter(dir->get(), parent, name);
}

// -- making

Expected<Tree::Making> Tree::beginMaking(Inode& parent) {
  auto change = beginChange();
  if (!change) return Failure(change.error());
  if (auto ok = ownDirectory(parent); !ok) return Failure(ok.error());
  std::shared_lock names(names_);
  auto dir = openParent(parent);
  if (!dir) return Failure(dir.error());
  return Making{std::move(*change), std::move(names), std::move(*dir)};
}

template <class Make>
Expected<Tree::Entry> Tree::makeNamed(Inode& parent, const std::string& name,
                                      const Creator& creator, Make make) {
  if (!plainName(name)) return fail(EINVAL);
  const auto making = beginMaking(parent);
  if (!making) return Failure(making.error());
  const DirectoryRef& dir = making->dir;
  {
    const CreateAs as(creator);
    if (make(dir.get(), as) != 0) return fail(errno);
  }
  dir.changed();
  return enter(dir.get(), parent, name);
}

Expected<Tree::Entry> Tree::mknod(Inode& parent, const std::string& name, mode_t mode, dev_t device,
                                  const Creator& creator) {
  if (S_ISDIR(mode) || S_ISLNK(mode)) return fail(EINVAL);
  return makeNamed(parent, name, creator, [&](int dir, const CreateAs& as) {
    return ::mknodat(dir, name.c_str(), as.mode(mode), device);
  });
}

Expected<Tree::Entry> Tree::mkdir(Inode& parent, const std::string& name, mode_t mode,
                                  const Creator& creator) {
  return makeNamed(parent, name, creator, [&](int dir, const CreateAs& as) {
    return ::mkdirat(dir, name.c_str(), as.mode(mode));
  });
}

Expected<Tree::Entry> Tree::symlink(Inode& parent, const std::string& name,
                                    const std::string& target, const Creator& creator) {
  return makeNamed(parent, name, creator, [&](int dir, const CreateAs&) {
    return ::symlinkat(target.c_str(), dir, name.c_str());
  });
}

Expected<Tree::Entry> Tree::link(Inode& inode, Inode& parent, const std::string& name) {
  if (&inode.tree() != this || &parent.tree() != this) return fail(EXDEV);
  if (!plainName(name)) return fail(EINVAL);
  const auto change = beginChange();
  if (!change) return Failure(change.error());
  if (auto ok = ownDirectory(parent); !ok) return Failure(ok.error());
  if (auto ok = ownFile(inode); !ok) return Failure(ok.error());
  const std::unique_lock lock(names_);
  // One without a name can be given one only if it never had any. The file system below knows, but
  // of a copy that stands for all names it has one itself.
  const auto group = cow_ != nullptr ? cow_->group(inode.backing()) : std::nullopt;
  if (group && group->links == 0) return fail(ENOENT);
  const auto file = openBacking(inode, O_PATH);
  if (!file) return Failure(file.error());
  const auto dir = openParent(parent);
  if (!dir) return Failure(dir.error());
  if (::linkat(AT_FDCWD, procPath(file->fd.get()).c_str(), dir->get(), name.c_str(),
               AT_SYMLINK_FOLLOW) != 0) {
    return fail(errno);
  }
  dir->changed();
  countName(&inode, file->attributes, 1);
  changed(file->attributes);
  return enter(dir->get(), parent, name);
}

// -- removing and moving

void Tree::gone(const InodePtr& inode, const struct stat& st) {
  changed(st);
  countName(inode.get(), st, -1);
  if (inode && inode->isDirectory()) DirectoryCache::ofProcess().drop(*inode);
  if (cow_ == nullptr || !S_ISDIR(st.st_mode)) return;
  // An empty directory that nobody can reach is as good as own.
  cow_->removeStub(backingId(st));
  const std::lock_guard lock(inodes_);
  if (inode) inode->stub_ = false;
}

Status Tree::remove(Inode& parent, const std::string& name, bool directory) {
  if (!plainName(name)) return fail(EINVAL);
  const auto change = beginChange();
  if (!change) return Failure(change.error());
  if (auto ok = ownDirectory(parent); !ok) return ok;
  const std::unique_lock lock(names_);
  const auto dir = openParent(parent);
  if (!dir) return Failure(dir.error());
  struct stat st;
  if (::fstatat(dir->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return fail(errno);
  if (auto ok = refuseFullStub(st); directory && !ok) return ok;
  const InodePtr inode = find(backingId(st));
  auto kept = keepIfLast(inode, dir->get(), parent, name);
  if (!kept) return Failure(kept.error());
  if (::unlinkat(dir->get(), name.c_str(), directory ? AT_REMOVEDIR : 0) != 0) return fail(errno);
  dir->changed();
  gone(inode, st);
  if (inode) removeName(*inode, parent, name, std::move(*kept));
  return {};
}

Status Tree::unlink(Inode& parent, const std::string& name) {
  return remove(parent, name, false);
}

Status Tree::rmdir(Inode& parent, const std::string& name) {
  return remove(parent, name, true);
}

void Tree::renamed(const InodePtr& moved, Inode& from, const std::string& name, Inode& to,
                   const std::string& newName) {
  if (!moved) return;
  removeName(*moved, from, name, nullptr);
  const std::lock_guard lock(inodes_);
  addName(*moved, to, newName);
}

Status Tree::rename(Inode& parent, const std::string& name, Inode& newParent,
                    const std::string& newName, unsigned flags) {
  if (&parent.tree() != this || &newParent.tree() != this) return fail(EXDEV);
  if (!plainName(name) || !plainName(newName)) return fail(EINVAL);
  if (flags != 0 && flags != RENAME_NOREPLACE && flags != RENAME_EXCHANGE) return fail(EINVAL);
  const auto change = beginChange();
  if (!change) return Failure(change.error());
  if (auto ok = ownDirectory(parent); !ok) return ok;
  if (auto ok = ownDirectory(newParent); !ok) return ok;
  const std::unique_lock lock(names_);
  const auto from = openParent(parent);
  if (!from) return Failure(from.error());
  const auto to = openParent(newParent);
  if (!to) return Failure(to.error());

  struct stat st;
  if (::fstatat(from->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return fail(errno);
  const InodePtr moved = find(backingId(st));
  InodePtr target;
  struct stat targetSt;
  const bool exists = ::fstatat(to->get(), newName.c_str(), &targetSt, AT_SYMLINK_NOFOLLOW) == 0;
  // Not known is not none: a stub that looks empty on disk would be replaced.
  if (!exists && errno != ENOENT) return fail(errno);
  const bool sameFile = exists && canonical(backingId(st)) == canonical(backingId(targetSt));
  if (exists) {
    target = find(backingId(targetSt));
    // Nothing is to happen then; the kernel may not see that they are one file.
    if (sameFile && flags == 0) return {};
    if (auto ok = refuseFullStub(targetSt); flags == 0 && S_ISDIR(st.st_mode) && !ok) return ok;
  }
  Expected<std::shared_ptr<UniqueFd>> kept = nullptr;
  if (flags == 0 && !sameFile) kept = keepIfLast(target, to->get(), newParent, newName);
  if (!kept) return Failure(kept.error());
  if (::renameat2(from->get(), name.c_str(), to->get(), newName.c_str(), flags) != 0) {
    return fail(errno);
  }
  from->changed();
  to->changed();
  if (sameFile) return {};  // two links to one file: nothing happened
  changed(st);
  if (exists) changed(targetSt);
  if (flags == RENAME_EXCHANGE) {
    renamed(target, newParent, newName, parent, name);
  } else if (exists) {
    gone(target, targetSt);
    if (target) removeName(*target, newParent, newName, std::move(*kept));
  }
  renamed(moved, parent, name, newParent, newName);
  return {};
}

}  // namespace kilnfs
