#include "store/layout.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string_view>
#include <tuple>

#include "store/base/directory_names.h"
#include "store/tree/system.h"

namespace kilnfs {
namespace {

/// Takes the rights of others away. Where the group may write, it is one that works here. Somebody
/// else's directory in the store of a user who is not root stays as it is.
Status keepOthersOut(const Area& area) {
  struct stat st = {};
  if (::fstat(area.fd.get(), &st) != 0) return failErrno("stat " + area.path);
  const mode_t wanted = st.st_mode & ((st.st_mode & S_IWGRP) != 0 ? 07770 : 07700);
  if (wanted == (st.st_mode & 07777) || (::geteuid() != 0 && st.st_uid != ::geteuid())) return {};
  if (::fchmod(area.fd.get(), wanted) != 0) return failErrno("change the mode of " + area.path);
  return {};
}

/// What is made here has no access list but its own, and the trees have nothing to do with each
/// other: ext4 puts each where it has most room then, as it does with the directories of its root,
/// and not where another was deleted just now. It does not use an inode again for half a minute,
/// and looks at each of those when it makes a file. Other file systems have no such mark.
void prepareForTrees(const Area& area) {
  (void)::fremovexattr(area.fd.get(), "system.posix_acl_default");
  int flags = 0;
  if (::ioctl(area.fd.get(), FS_IOC_GETFLAGS, &flags) != 0) return;
  flags |= FS_TOPDIR_FL;
  (void)::ioctl(area.fd.get(), FS_IOC_SETFLAGS, &flags);
}

Expected<Area> openArea(int rootFd, const std::string& root, const char* name, bool reserved) {
  if (::mkdirat(rootFd, name, reserved ? 0700 : 0755) != 0 && errno != EEXIST) {
    return failErrno(fmt::format("make {}/{}", root, name));
  }
  Area area;
  area.path = root + "/" + name;
  area.fd.reset(::openat(rootFd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!area.fd.valid()) return failErrno("open " + area.path);
  if (auto ok = reserved ? keepOthersOut(area) : Status(); !ok) return Failure(ok.error());
  return area;
}

/// A directory is taken for a store when it is empty or has the store's `result` or `state`.
Status refuseForeign(int rootFd, const std::string& root) {
  struct stat st = {};
  for (const char* mark : {"result", "state"}) {
    if (::fstatat(rootFd, mark, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)) return {};
  }
  auto names = directoryNames(rootFd);
  if (!names) return Failure(names.error());
  for (const std::string& name : *names) {
    if (name == "lost+found") continue;
    return fail(ENOTEMPTY, fmt::format("{} is not a store and is not empty (it holds {}): give an "
                                       "empty or new directory, or an existing store",
                                       root, inQuotes(name)));
  }
  return {};
}

Expected<std::string> realPath(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), ::free);
  if (!real) return failErrno(path);
  return std::string(real.get());
}

Status rename(const Area& from, const std::string& name, const Area& to, const std::string& newName,
              unsigned flags) {
  if (!moveEntry(from.fd.get(), name, to.fd.get(), newName, flags)) {
    return failErrno(fmt::format("rename {}/{} to {}/{}", from.path, name, to.path, newName));
  }
  return {};
}

}  // namespace

Expected<Layout> Layout::open(const std::string& root, bool usersWorkHere) {
  if (::mkdir(root.c_str(), 0755) != 0 && errno != EEXIST) {
    return failErrno(fmt::format("make the store {}", root));
  }
  auto real = realPath(root);
  if (!real) return Failure(real.error());
  const UniqueFd rootFd(::open(real->c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!rootFd.valid()) {
    if (errno == ENOTDIR) {
      return fail(ENOTDIR, fmt::format("{} is a file: give a directory for the store", root));
    }
    return failErrno(fmt::format("open the store {}", root));
  }
  if (auto ok = refuseForeign(rootFd.get(), *real); !ok) return Failure(ok.error());
  Layout layout;
  layout.root_ = *real;
  // Where root builds for others, files of snapshots belong to others, who could change them.
  const bool forOthers = ::geteuid() == 0;
  const std::tuple<const char*, Area*, bool> areas[] = {
      {"result", &layout.result_, forOthers}, {"result-tmp", &layout.resultTmp_, !usersWorkHere},
      {"cache", &layout.cache_, forOthers},   {"cache-tmp", &layout.cacheTmp_, !usersWorkHere},
      {"log", &layout.log_, false},           {"state", &layout.state_, true}};
  for (const auto& [name, area, reserved] : areas) {
    auto opened = openArea(rootFd.get(), *real, name, reserved);
    if (!opened) return Failure(opened.error());
    *area = std::move(*opened);
  }
  // Root may write anywhere, so the mode is not the whole truth: a read-only mount shows here.
  if (::faccessat(layout.state_.fd.get(), ".", W_OK, AT_EACCESS) != 0) {
    return failErrno(fmt::format("{} is not writable", layout.state_.path));
  }
  for (const Area* area : {&layout.resultTmp_, &layout.cacheTmp_}) prepareForTrees(*area);
  return layout;
}

bool isDirectory(const Area& area, const std::string& name) {
  struct stat st = {};
  return ::fstatat(area.fd.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
         S_ISDIR(st.st_mode);
}

Expected<bool> hasDirectory(const Area& area, const std::string& name) {
  struct stat st = {};
  if (::fstatat(area.fd.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
    return S_ISDIR(st.st_mode);
  }
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return failErrno(fmt::format("look at {}/{}", area.path, name));
}

bool isEntryName(std::string_view text) {
  return !text.empty() && text != "." && text != ".." &&
         text.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

Expected<std::vector<std::string>> listNames(const Area& area) {
  return directoryNames(area.fd.get());
}

MadeWritable::MadeWritable(int dirFd, const std::string& name)
    : fd_(::openat(dirFd, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) {
  struct stat st = {};
  if (!fd_.valid() || ::fstat(fd_.get(), &st) != 0 || st.st_uid != ::geteuid()) return;
  mode_ = st.st_mode & 07777;
  done_ = (mode_ & S_IWUSR) == 0 && ::chmod(procPath(fd_.get()).c_str(), mode_ | S_IWUSR) == 0;
}

MadeWritable::~MadeWritable() {
  const int code = errno;  // of what was done meanwhile
  if (done_) (void)::chmod(procPath(fd_.get()).c_str(), mode_);
  errno = code;
}

bool moveEntry(int from, const std::string& name, int to, const std::string& newName,
               unsigned flags) {
  const auto move = [&] {
    return ::renameat2(from, name.c_str(), to, newName.c_str(), flags) == 0;
  };
  if (move()) return true;
  if (errno != EACCES) return false;
  const MadeWritable one(from, name);
  const MadeWritable other((flags & RENAME_EXCHANGE) != 0 ? to : -1, newName);
  if (!one.done() && !other.done()) {
    errno = EACCES;
    return false;
  }
  return move();
}

Status renameInStore(const Area& from, const std::string& name, const Area& to,
                     const std::string& newName, TreeRoot* tree) {
  TreeRoot::Moving moving(tree);
  if (auto ok = rename(from, name, to, newName, RENAME_NOREPLACE); !ok) return ok;
  moving.to(to.fd.get(), to.path, newName);
  return {};
}

Status exchangeInStore(const Area& from, const std::string& name, TreeRoot* tree, const Area& to,
                       const std::string& newName, TreeRoot* other) {
  TreeRoot::Moving moving(tree);
  TreeRoot::Moving otherMoving(other);
  if (auto ok = rename(from, name, to, newName, RENAME_EXCHANGE); !ok) return ok;
  moving.to(to.fd.get(), to.path, newName);
  otherMoving.to(from.fd.get(), from.path, name);
  return {};
}

}  // namespace kilnfs
