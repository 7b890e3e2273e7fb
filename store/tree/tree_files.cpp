// Files of a tree: opening, attributes, extended attributes.

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <climits>

#include "store/tree/system.h"
#include "store/tree/tree.h"

namespace kilnfs {
namespace {

// What of a caller's flags concerns the backing file. Not O_APPEND (see File::append), and not
// O_DIRECT: the kernel's buffers for us are not aligned as that wants.
constexpr int kBackingFlags = O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC;

constexpr const char* kFileCapabilities = "security.capability";

bool wantsWrite(int flags) {
  return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
}

}  // namespace

Expected<std::unique_ptr<File>> Tree::open(Inode& inode, int flags, bool mayKeepSuid) {
  if (!S_ISREG(inode.type())) return fail(inode.isDirectory() ? EISDIR : EINVAL);
  const bool writable = wantsWrite(flags);
  const int backing = flags & kBackingFlags;
  Cut cut{0, backing, {}};
  std::optional<Workspace::Change> change;
  if (writable) {
    auto begun = beginChange();
    if (!begun) return Failure(begun.error());
    change = std::move(*begun);
    if (auto ok = ownFile(inode, (flags & O_TRUNC) != 0 ? &cut : nullptr); !ok) {
      return Failure(ok.error());
    }
  } else if (auto ok = refuseFrozen(); !ok) {
    return Failure(ok.error());
  }
  // Reading a result must not write to it, so also no access time.
  const int quiet = readOnly() || (flags & O_NOATIME) != 0 ? O_NOATIME : 0;
  const std::shared_lock lock(names_);
  const bool copied = cut.fd.valid();
  auto opened = copied ? asOpened(std::move(cut.fd)) : openBacking(inode, backing | quiet);
  if (!opened && opened.error().code == EPERM && quiet != 0) opened = openBacking(inode, backing);
  if (!opened) return Failure(opened.error());
  if (copied) changed(opened->attributes);  // a copy is none, but this one was cut
  if ((flags & O_TRUNC) != 0 && !mayKeepSuid) dropSetId(opened->fd.get());
  if (snapshot_) {
    return std::make_unique<File>(InodePtr(&inode), std::move(opened->fd), opened->attributes,
                                  snapshot_);
  }
  workspace_->opened(writable);
  auto file = std::make_unique<File>(InodePtr(&inode), std::move(opened->fd), opened->attributes,
                                     writable, workspace_);
  if (noticesOpen(inode, writable)) addOpen(*file);
  return file;
}

Expected<Tree::Created> Tree::create(Inode& parent, const std::string& name, int flags, mode_t mode,
                                     const Creator& creator) {
  if (!plainName(name)) return fail(EINVAL);
  UniqueFd fd;
  {
    const auto making = beginMaking(parent);
    if (!making) return Failure(making.error());
    {
      const CreateAs as(creator);
      fd.reset(::openat(making->dir.get(), name.c_str(),
                        (flags & kBackingFlags) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                        as.mode(mode & 07777)));
    }
    if (fd.valid()) {
      making->dir.changed();
      struct stat st;
      if (::fstat(fd.get(), &st) != 0) return fail(errno);
      return asCreated(std::move(fd), st, intern(st, &parent, name, true), wantsWrite(flags));
    }
    if (errno != EEXIST || (flags & O_EXCL) != 0) return fail(errno);
  }
  auto entry = lookup(parent, name);
  if (!entry) return Failure(entry.error());
  auto file = open(*entry->inode, flags, creator.uid == 0);
  if (!file) return Failure(file.error());
  auto attributes = getattr(*entry->inode, file->get());
  if (attributes) entry->attributes = *attributes;
  return Created{std::move(*entry), std::move(*file)};
}

Tree::Created Tree::asCreated(UniqueFd fd, const struct stat& st, InodePtr inode, bool writable) {
  Created created{{std::move(inode), {}}, nullptr};
  created.entry.attributes = seen(st, *created.entry.inode);
  workspace_->opened(writable);
  created.file =
      std::make_unique<File>(created.entry.inode, std::move(fd), st, writable, workspace_);
  if (noticesOpen(*created.entry.inode, writable)) addOpen(*created.file);
  return created;
}

Expected<Tree::Created> Tree::createUnnamed(Inode& parent, int flags, mode_t mode,
                                            const Creator& creator) {
  // Of a directory that is the snapshot's still, what it passes on to new files may not be here.
  const auto making = beginMaking(parent);
  if (!making) return Failure(making.error());
  UniqueFd fd;
  {
    const CreateAs as(creator);
    fd.reset(::openat(making->dir.get(), ".",
                      (flags & (kBackingFlags | O_EXCL)) | O_TMPFILE | O_CLOEXEC,
                      as.mode(mode & 07777)));
  }
  struct stat st;
  if (!fd.valid() || ::fstat(fd.get(), &st) != 0) return fail(errno);
  // Not another descriptor for the same opening, which is for writing.
  UniqueFd kept(::open(procPath(fd.get()).c_str(), O_PATH | O_CLOEXEC));
  if (!kept.valid()) return fail(errno);
  InodePtr inode = intern(st, nullptr, {}, true);
  hold(*inode, std::make_shared<UniqueFd>(std::move(kept)));
  return asCreated(std::move(fd), st, std::move(inode), wantsWrite(flags));
}

bool Tree::mayBypass(const Inode& inode) const {
  if (!workspace_) return true;
  return !workspace_->noticesWrites() && !changedElsewhere() && !isShared(inode);
}

bool Tree::mappedForWriting(const Inode& inode) const {
  if (!workspace_ || !workspace_->anyMapped()) return false;
  const auto group = cow_ != nullptr ? cow_->group(inode.backing()) : std::nullopt;
  return workspace_->mappedForWriting(group && group->replaced() ? group->id : inode.backing());
}

Expected<std::string> Tree::readlink(Inode& inode) {
  if (!S_ISLNK(inode.type())) return fail(EINVAL);
  if (auto ok = refuseFrozen(); !ok) return Failure(ok.error());
  const std::shared_lock lock(names_);
  const auto opened = openBacking(inode, O_PATH);
  if (!opened) return Failure(opened.error());
  std::string target(PATH_MAX, '\0');
  const ssize_t n = ::readlinkat(opened->fd.get(), "", target.data(), target.size());
  if (n < 0) return fail(errno);
  target.resize(static_cast<size_t>(n));
  return target;
}

Expected<struct stat> Tree::getattr(Inode& inode, const File* file) {
  struct stat st;
  if (file != nullptr) {
    if (::fstat(file->fd(), &st) != 0) return fail(errno);
    return seen(st, inode);
  }
  // Not refused in a frozen workspace: fstat of a file that is open must go on working.
  const std::shared_lock lock(names_);
  auto found = statBacking(inode);
  if (!found && changedElsewhere()) found = statOpen(inode);
  if (!found) return Failure(found.error());
  return seen(*found, inode);
}

void Tree::addOpen(const File& file) {
  const std::lock_guard lock(inodes_);
  Inode& inode = *file.inode();
  if (!inode.rare_) inode.rare_ = std::make_unique<Inode::Rare>();
  inode.rare_->open.push_back(&file);
}

void Tree::removeOpen(const File& file) {
  const std::lock_guard lock(inodes_);
  if (Inode& inode = *file.inode(); inode.rare_) std::erase(inode.rare_->open, &file);
}

Expected<struct stat> Tree::statOpen(const Inode& inode) const {
  const std::lock_guard lock(inodes_);  // keeps it open
  if (!inode.rare_ || inode.rare_->open.empty()) return fail(ESTALE);
  struct stat st;
  if (::fstat(inode.rare_->open.front()->fd(), &st) != 0) return fail(errno);
  return st;
}

namespace {

Status setSize(const std::string& path, off_t size, const File* file) {
  const bool through = file != nullptr && file->writable();
  const int failed = through ? ::ftruncate(file->fd(), size) : ::truncate(path.c_str(), size);
  if (failed != 0) return fail(errno);
  return {};
}

// In an order in which nothing undoes what went before: a new owner clears set-id bits, a new size
// changes the times.
Status apply(int fd, const SetAttributes& wanted, const File* file) {
  const std::string path = procPath(fd);
  if (wanted.size) {
    if (auto done = setSize(path, *wanted.size, file); !done) return done;
    if (wanted.clearSetId) dropSetId(fd);
  }
  // chown(-1, -1) asks for nothing, and yet it is a change (of the time of change).
  const bool nothing = !wanted.size && !wanted.mode && !wanted.atime && !wanted.mtime;
  if (wanted.uid || wanted.gid || nothing) {
    const uid_t uid = wanted.uid.value_or(static_cast<uid_t>(-1));
    const gid_t gid = wanted.gid.value_or(static_cast<gid_t>(-1));
    if (::fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) return fail(errno);
  }
  if (wanted.mode) {
    if (::chmod(path.c_str(), *wanted.mode & 07777) != 0) return fail(errno);
  }
  if (wanted.atime || wanted.mtime) {
    const struct timespec omit = {0, UTIME_OMIT};
    const struct timespec times[2] = {wanted.atime.value_or(omit), wanted.mtime.value_or(omit)};
    if (::utimensat(fd, "", times, AT_EMPTY_PATH) != 0) return fail(errno);
  }
  return {};
}

}  // namespace

Expected<struct stat> Tree::setattr(Inode& inode, const SetAttributes& wanted, const File* file) {
  const auto change = beginChange();
  if (!change) return Failure(change.error());
  // A copy is cut as it is made: there may be nothing left to cut then, and no time that moves.
  SetAttributes changes = wanted;
  if (wanted.size && !wanted.mtime && isShared(inode)) changes.mtime = timespec{0, UTIME_NOW};
  const bool cuts = wanted.size && S_ISREG(inode.type());
  Cut cut{static_cast<uint64_t>(wanted.size.value_or(0)), O_WRONLY, {}};
  if (auto ok = own(inode, cuts ? &cut : nullptr); !ok) return Failure(ok.error());
  const std::shared_lock lock(names_);
  const auto opened = cut.fd.valid() ? asOpened(std::move(cut.fd)) : openBacking(inode, O_PATH);
  if (!opened) return Failure(opened.error());
  if (auto done = apply(opened->fd.get(), changes, file); !done) return Failure(done.error());
  changed(opened->attributes);
  struct stat st;
  if (::fstat(opened->fd.get(), &st) != 0) return fail(errno);
  return seen(st, inode);
}

Expected<std::string> Tree::getxattr(Inode& inode, const std::string& name) {
  // The kernel asks for it before the first write to a file.
  if (inode.incapable_ && name == kFileCapabilities) return fail(ENODATA);
  const std::shared_lock lock(names_);
  const auto opened = openBacking(inode, O_PATH);
  if (!opened) return Failure(opened.error());
  const std::string path = procPath(opened->fd.get());
  std::string value(256, '\0');
  for (;;) {
    const ssize_t n = ::getxattr(path.c_str(), name.c_str(), value.data(), value.size());
    if (n >= 0) {
      value.resize(static_cast<size_t>(n));
      return value;
    }
    if (errno != ERANGE || value.size() >= XATTR_SIZE_MAX) return fail(errno);
    value.resize(XATTR_SIZE_MAX);
  }
}

Expected<std::vector<std::string>> Tree::listxattr(Inode& inode) {
  const std::shared_lock lock(names_);
  const auto opened = openBacking(inode, O_PATH);
  if (!opened) return Failure(opened.error());
  const std::string path = procPath(opened->fd.get());
  std::string list(1024, '\0');
  ssize_t n = ::listxattr(path.c_str(), list.data(), list.size());
  if (n < 0 && errno == ERANGE) {
    list.resize(XATTR_LIST_MAX);
    n = ::listxattr(path.c_str(), list.data(), list.size());
  }
  if (n < 0) return fail(errno);
  std::vector<std::string> names;
  for (size_t at = 0; at < static_cast<size_t>(n); at += names.back().size() + 1) {
    names.emplace_back(list.c_str() + at);
  }
  return names;
}

Status Tree::setxattr(Inode& inode, const std::string& name, const std::string& value, int flags) {
  const auto change = beginChange();
  if (!change) return Failure(change.error());
  if (auto ok = own(inode); !ok) return ok;
  const std::shared_lock lock(names_);
  const auto opened = openBacking(inode, O_PATH);
  if (!opened) return Failure(opened.error());
  if (name == kFileCapabilities) inode.incapable_ = false;
  if (::setxattr(procPath(opened->fd.get()).c_str(), name.c_str(), value.data(), value.size(),
                 flags) != 0) {
    return fail(errno);
  }
  changed(opened->attributes);
  return {};
}

Status Tree::removexattr(Inode& inode, const std::string& name) {
  const auto change = beginChange();
  if (!change) return Failure(change.error());
  if (auto ok = own(inode); !ok) return ok;
  const std::shared_lock lock(names_);
  const auto opened = openBacking(inode, O_PATH);
  if (!opened) return Failure(opened.error());
  if (::removexattr(procPath(opened->fd.get()).c_str(), name.c_str()) != 0) return fail(errno);
  changed(opened->attributes);
  return {};
}

Expected<struct statvfs> Tree::statfs(Inode& inode) {
  const std::shared_lock lock(names_);
  auto opened = openBacking(inode, O_PATH);
  struct statvfs st;
  if (!opened) return Failure(opened.error());
  if (::fstatvfs(opened->fd.get(), &st) != 0) return fail(errno);
  return st;
}

}  // namespace kilnfs
