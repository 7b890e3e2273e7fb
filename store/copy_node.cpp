#include "store/copy_node.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <map>
#include <vector>

#include "store/base/fd.h"
#include "store/base/xattr.h"
#include "store/tree/system.h"

namespace kilnfs {
namespace {

Status copyRange(int in, int out, off_t begin, off_t end) {
  off_t inAt = begin;
  off_t outAt = begin;
  while (inAt < end) {
    const ssize_t n = ::copy_file_range(in, &inAt, out, &outAt, static_cast<size_t>(end - inAt), 0);
    if (n > 0) continue;
    if (n == 0) return {};  // it was cut short meanwhile
    if (errno == EINTR) continue;
    if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS) {
      return failErrno("copy");
    }
    char buffer[65536];
    const size_t want = std::min(sizeof buffer, static_cast<size_t>(end - inAt));
    const ssize_t got = ::pread(in, buffer, want, inAt);
    if (got <= 0) return got == 0 ? Status() : Status(failErrno("copy"));
    if (::pwrite(out, buffer, static_cast<size_t>(got), outAt) != got) return failErrno("copy");
    inAt += got;
    outAt += got;
  }
  return {};
}

Status copyContent(int from, int out, const struct stat& st, std::optional<uint64_t> keep) {
  const off_t size = keep ? std::min(st.st_size, static_cast<off_t>(*keep)) : st.st_size;
  if (size == 0) return {};
  const UniqueFd in(::open(procPath(from).c_str(), O_RDONLY | O_CLOEXEC));
  if (!in.valid()) return failErrno("open to copy");
  if (size == st.st_size && ::ioctl(out, FICLONE, in.get()) == 0) return {};
  for (off_t at = 0; at < size;) {
    const off_t data = ::lseek(in.get(), at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // a hole to the end
    off_t end = data < 0 ? size : ::lseek(in.get(), data, SEEK_HOLE);
    const off_t begin = std::max<off_t>(data, at);
    if (end < 0 || end > size) end = size;
    if (auto ok = copyRange(in.get(), out, begin, end); !ok) return ok;
    at = std::max(end, at + 1);
  }
  if (::ftruncate(out, size) != 0) return failErrno("copy");
  return {};
}

// Not to be had by an unprivileged daemon, or not on this file system: left out.
bool forgivable(int code) {
  return code == EPERM || code == EOPNOTSUPP || code == EACCES;
}

/// The extended attributes that may be read.
Expected<std::map<std::string, std::string>> xattrsOf(int fd) {
  std::map<std::string, std::string> out;
  const std::string path = procPath(fd);
  std::vector<char> names(XATTR_LIST_MAX);
  // The common case is that there is none: one call.
  const ssize_t length = ::listxattr(path.c_str(), names.data(), names.size());
  if (length < 0 && !forgivable(errno)) return failErrno("list attributes");
  std::vector<char> value;
  for (ssize_t at = 0; at < length;) {
    const std::string name = names.data() + at;
    at += static_cast<ssize_t>(name.size()) + 1;
    value.resize(XATTR_SIZE_MAX);
    const ssize_t n = readXattr(path, name, value.data(), value.size());
    if (n >= 0) {
      out[name].assign(value.data(), static_cast<size_t>(n));
    } else if (!forgivable(errno) && errno != ENODATA) {
      return failErrno("read attribute " + name);
    }
  }
  return out;
}

/// Takes back what a directory passed on to what was made in it, if it is not one of `attributes`.
Status removeInheritedLists(const std::string& path,
                            const std::map<std::string, std::string>& attributes) {
  // The common case is that it passed on nothing: one call.
  if (::listxattr(path.c_str(), nullptr, 0) == 0) return {};
  for (const char* list : {"system.posix_acl_access", "system.posix_acl_default"}) {
    if (attributes.count(list) == 0 && ::removexattr(path.c_str(), list) != 0 && errno != ENODATA &&
        errno != EOPNOTSUPP) {
      return failErrno("remove an access list");
    }
  }
  return {};
}

Status copyXattrs(int from, const std::string& to) {
  const auto attributes = xattrsOf(from);
  if (!attributes) return Failure(attributes.error());
  if (auto ok = removeInheritedLists(to, *attributes); !ok) return ok;
  for (const auto& [name, value] : *attributes) {
    if (::setxattr(to.c_str(), name.c_str(), value.data(), value.size(), 0) != 0 &&
        !forgivable(errno)) {
      return failErrno("set attribute " + name);
    }
  }
  return {};
}

Status makeNode(int from, int toDir, const std::string& toName, const struct stat& st,
                std::optional<uint64_t> keep) {
  if (S_ISREG(st.st_mode)) {
    const UniqueFd out(
        ::openat(toDir, toName.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!out.valid()) return failErrno("make a copy");
    return copyContent(from, out.get(), st, keep);
  }
  if (S_ISLNK(st.st_mode)) {
    std::string target(PATH_MAX, '\0');
    const ssize_t n = ::readlinkat(from, "", target.data(), target.size());
    if (n < 0) return failErrno("read a link");
    target.resize(static_cast<size_t>(n));
    if (::symlinkat(target.c_str(), toDir, toName.c_str()) != 0) return failErrno("make a link");
    return {};
  }
  if (::mknodat(toDir, toName.c_str(), st.st_mode, st.st_rdev) != 0)
    return failErrno("make a node");
  return {};
}

}  // namespace

Status copyAttributes(int from, int to) {
  struct stat st = {};
  struct stat now = {};
  if (::fstat(from, &st) != 0 || ::fstat(to, &now) != 0) return failErrno("stat");
  if ((st.st_uid != now.st_uid || st.st_gid != now.st_gid) &&
      ::fchownat(to, "", st.st_uid, st.st_gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 &&
      !forgivable(errno)) {
    return failErrno("chown");
  }
  const std::string path = procPath(to);
  if (auto ok = copyXattrs(from, path); !ok) return ok;
  // After the owner and the ACL, which change it.
  if (!S_ISLNK(st.st_mode) && ::chmod(path.c_str(), st.st_mode & 07777) != 0) {
    return failErrno("chmod");
  }
  const struct timespec times[2] = {st.st_atim, st.st_mtim};
  if (::utimensat(to, "", times, AT_EMPTY_PATH) != 0) return failErrno("set times");
  return {};
}

Expected<bool> sameAttributes(int a, int b) {
  struct stat one = {};
  struct stat other = {};
  if (::fstat(a, &one) != 0 || ::fstat(b, &other) != 0) return failErrno("stat");
  if (one.st_mode != other.st_mode || one.st_uid != other.st_uid || one.st_gid != other.st_gid ||
      one.st_mtim.tv_sec != other.st_mtim.tv_sec || one.st_mtim.tv_nsec != other.st_mtim.tv_nsec) {
    return false;
  }
  const auto first = xattrsOf(a);
  if (!first) return Failure(first.error());
  const auto second = xattrsOf(b);
  if (!second) return Failure(second.error());
  return *first == *second;
}

Status copyNode(int from, int toDir, const std::string& toName, std::optional<uint64_t> keep) {
  struct stat st = {};
  if (::fstat(from, &st) != 0) return failErrno("stat");
  Status ok = makeNode(from, toDir, toName, st, keep);
  if (ok) {
    const UniqueFd made(::openat(toDir, toName.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    ok = made.valid() ? copyAttributes(from, made.get()) : Status(failErrno("open the copy"));
  }
  if (!ok && ok.error().code != EEXIST) ::unlinkat(toDir, toName.c_str(), 0);
  return ok;
}

}  // namespace kilnfs
