#include "store/tree/tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <climits>

#include "store/tree/directory.h"
#include "store/tree/links.h"
#include "store/tree/system.h"

namespace kilnfs {
namespace {

// The finalizer of splitmix64: a bijection of 64-bit numbers.
uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

uint64_t saltOf(const std::string& key) {
  uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return mix(hash);
}

bool before(const BackingId& a, const BackingId& b) {
  return a.ino != b.ino ? a.ino < b.ino : a.dev < b.dev;
}

}  // namespace

size_t Tree::Hash::operator()(const BackingId& id) const {
  return mix(id.ino ^ (static_cast<uint64_t>(id.dev) << 32));
}

Tree::Tree(std::shared_ptr<Snapshot> snapshot, std::shared_ptr<Workspace> workspace,
           uint64_t outerIno)
    : snapshot_(std::move(snapshot)),
      workspace_(std::move(workspace)),
      place_(snapshot_ ? static_cast<const TreeRoot&>(*snapshot_) : *workspace_),
      salt_(saltOf(place_.key())),
      outerIno_(outerIno),
      links_(before) {}

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

// -- inode numbers

uint64_t Tree::visibleIno(const BackingId& backing) const {
  const uint64_t other = backing.dev == rootDev_ ? 0 : mix(backing.dev);
  const uint64_t ino = mix(backing.ino ^ salt_ ^ other);
  return ino != 0 ? ino : 1;  // 0 means "no entry" to readdir
}

uint64_t Tree::visibleIno(const Inode& parent, uint64_t ino) const {
  return visibleIno({ino, parent.backing().dev});
}

uint64_t Tree::visibleIno(const std::string& key, uint64_t ino) {
  const uint64_t visible = mix(ino ^ saltOf(key));
  return visible != 0 ? visible : 1;
}

uint64_t Tree::parentIno(const Inode& directory) const {
  const std::lock_guard lock(inodes_);
  return directory.parent_ ? visibleIno(directory.parent_->backing_) : outerIno_;
}

struct stat Tree::seen(struct stat st) const {
  if (snapshot_ && snapshot_->sharesInodes() && !S_ISDIR(st.st_mode) && st.st_nlink > 1) {
    st.st_nlink = linksInside(st);
  }
  st.st_ino = visibleIno(backingId(st));
  return st;
}

nlink_t Tree::linksInside(const struct stat& st) const {
  std::call_once(linksCounted_, [this] {
    countLinks([this](const std::string& path) { return openPath(path, O_RDONLY | O_DIRECTORY); },
               [this](const BackingId& backing, nlink_t links) { links_.emplace(backing, links); });
  });
  const auto it = links_.find(backingId(st));
  return it != links_.end() ? it->second : 1;
}

// -- from inodes to files

bool Tree::walkUp(const Inode& inode, std::string& path) {
  // Collected from the leaf up, then turned round.
  std::vector<const Inode*> chain;
  for (const Inode* at = &inode; at->parent_; at = at->parent_.get()) chain.push_back(at);
  const Inode& top = chain.empty() ? inode : *chain.back()->parent_;
  if (top.rare_ && top.rare_->kept) return false;  // below a directory that was removed
  for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
    if (!path.empty()) path += '/';
    path += (*it)->name_.get();
  }
  return true;
}

std::vector<std::string> Tree::paths(const Inode& inode) const {
  const std::lock_guard lock(inodes_);
  std::vector<std::string> found;
  std::string path;
  if (walkUp(inode, path)) found.push_back(std::move(path));
  if (!inode.rare_) return found;
  for (const Inode::Link& link : inode.rare_->links) {
    std::string other;
    if (!walkUp(*link.parent, other)) continue;
    found.push_back(other.empty() ? link.name : other + "/" + link.name);
  }
  return found;
}

std::shared_ptr<UniqueFd> Tree::keptFd(const Inode& inode) const {
  const std::lock_guard lock(inodes_);
  return inode.rare_ ? inode.rare_->kept : nullptr;
}

Expected<UniqueFd> Tree::openPath(const std::string& path, int flags) const {
  // A path may be longer than PATH_MAX: walk it in pieces.
  constexpr size_t kPiece = PATH_MAX - 512;
  if (path.size() <= kPiece) return place_.open(path, flags);
  UniqueFd at;
  size_t begin = 0;
  for (;;) {
    size_t end = path.size();
    if (end - begin > kPiece) end = path.rfind('/', begin + kPiece);
    const bool last = end == path.size();
    const std::string piece = path.substr(begin, end - begin);
    const int how = last ? flags : O_PATH | O_DIRECTORY;
    auto next = at.valid() ? openBeneath(at.get(), piece, how) : place_.open(piece, how);
    if (!next || last) return next;
    at = std::move(*next);
    begin = end + 1;
  }
}

Expected<Tree::Opened> Tree::openBacking(const Inode& inode, int flags) const {
  Opened opened;
  if (const auto kept = keptFd(inode)) {
    auto fd = reopen(kept->get(), flags);
    if (!fd) return Failure(fd.error());
    opened.fd = std::move(*fd);
    if (::fstat(opened.fd.get(), &opened.attributes) != 0) return fail(errno);
    return opened;
  }
  Error error{ESTALE, {}};
  for (const std::string& path : paths(inode)) {
    auto fd = openPath(path, flags | O_NOFOLLOW);
    if (!fd) {
      error = std::move(fd.error());
      continue;
    }
    if (::fstat(fd->get(), &opened.attributes) != 0) return fail(errno);
    if (backingId(opened.attributes) == inode.backing_) {
      opened.fd = std::move(*fd);
      return opened;
    }
    error.code = ESTALE;  // somebody changed the store behind our back
  }
  // The inode existed: its name is gone from the disk, not from the tree.
  if (error.code == ENOENT || error.code == ENOTDIR) error.code = ESTALE;
  return Failure(std::move(error));
}

Expected<UniqueFd> Tree::openParent(const Inode& parent) const {
  if (!parent.isDirectory()) return fail(ENOTDIR);
  if (keptFd(parent)) return fail(ENOENT);  // the directory was removed
  auto opened = openBacking(parent, O_PATH | O_DIRECTORY);
  if (!opened) return Failure(opened.error());
  return std::move(opened->fd);
}

}  // namespace kilnfs
