#include "store/tree_walk.h"

#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <memory>
#include <string_view>

namespace kilnfs {
namespace {

// Ancestors that are held open; to those between them and the current directory "..", leads.
constexpr size_t kHeld = 128;

Status readNames(int fd, std::vector<std::string>& names, bool& unreadable) {
  UniqueFd copy(::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!copy.valid() && errno == EACCES) {  // may be read, but not searched
    unreadable = true;
    return {};
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(copy.valid() ? ::fdopendir(copy.get()) : nullptr,
                                                ::closedir);
  if (!dir) return failErrno("list a directory");
  copy.release();
  errno = 0;
  while (const struct dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) return failErrno("list a directory");
  std::sort(names.begin(), names.end());
  return {};
}

/// Without an access time where that is ours to say.
UniqueFd openDirectoryQuietly(int at, const char* name) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  UniqueFd fd(::openat(at, name, kFlags | O_NOATIME));
  if (!fd.valid() && errno == EPERM) fd.reset(::openat(at, name, kFlags));
  return fd;
}

}  // namespace

Expected<bool> TreeWalk::start(Item& item) {
  started_ = true;
  item = Item();
  item.name = ".";
  item.dirFd = current_.get();
  if (::fstat(current_.get(), &item.attributes) != 0) return failErrno("stat");
  Frame frame;
  frame.dev = item.attributes.st_dev;
  frame.ino = item.attributes.st_ino;
  if (auto ok = readNames(current_.get(), frame.names, item.unreadable); !ok) {
    return Failure(ok.error());
  }
  frames_.push_back(std::move(frame));
  return true;
}

Status TreeWalk::enter(UniqueFd fd, Item& item) {
  Frame frame;
  frame.dev = item.attributes.st_dev;
  frame.ino = item.attributes.st_ino;
  frame.pathSize = path_.size();
  if (fd.valid()) {
    if (auto ok = readNames(fd.get(), frame.names, item.unreadable); !ok) return ok;
  }
  // The item's own directory stays current until the next call: its dirFd says so.
  frame.fd = std::move(fd);
  frames_.push_back(std::move(frame));
  descend_ = true;
  return {};
}

Status TreeWalk::leave() {
  frames_.pop_back();
  if (frames_.empty()) return {};
  Frame& above = frames_.back();
  path_.resize(above.pathSize);
  if (above.fd.valid()) {
    current_ = std::move(above.fd);
    return {};
  }
  UniqueFd fd = openDirectoryQuietly(current_.get(), "..");
  struct stat st = {};
  if (!fd.valid() || ::fstat(fd.get(), &st) != 0) return failErrno(inQuotes(path_) + "/..");
  if (st.st_dev != above.dev || st.st_ino != above.ino) {
    return fail(EAGAIN, "a directory was moved while its tree was read");
  }
  current_ = std::move(fd);
  return {};
}

Expected<bool> TreeWalk::next(Item& item) {
  if (!started_) return start(item);
  if (frames_.empty()) return false;
  if (descend_) {
    descend_ = false;
    Frame& entered = frames_.back();
    // An unreadable directory has no names, and its end needs no descriptor of its own.
    Frame& above = frames_[frames_.size() - 2];
    if (entered.fd.valid()) {
      if (frames_.size() <= kHeld) above.fd = std::move(current_);
      current_ = std::move(entered.fd);
    } else {
      frames_.pop_back();
      path_.resize(above.pathSize);
      item = Item();
      item.leaves = true;
      return true;
    }
  }
  Frame& frame = frames_.back();
  path_.resize(frame.pathSize);
  item = Item();
  if (frame.next == frame.names.size()) {
    item.leaves = true;
    if (auto ok = leave(); !ok) return Failure(ok.error());
    return true;
  }
  item.name = std::move(frame.names[frame.next++]);
  item.dirFd = current_.get();
  if (!path_.empty()) path_ += '/';
  path_ += item.name;
  if (::fstatat(item.dirFd, item.name.c_str(), &item.attributes, AT_SYMLINK_NOFOLLOW) != 0) {
    return failErrno(inQuotes(path_));
  }
  if (S_ISDIR(item.attributes.st_mode)) {
    UniqueFd fd = openDirectoryQuietly(item.dirFd, item.name.c_str());
    if (!fd.valid() && errno != EACCES) return failErrno(inQuotes(path_));
    item.unreadable = !fd.valid();
    if (auto ok = enter(std::move(fd), item); !ok) return Failure(ok.error());
  }
  return true;
}

}  // namespace kilnfs
