#include "tools/supervise/beneath.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

namespace kilnfs::supervise {
namespace {

bool split(const std::string& path, std::vector<std::string>& parts) {
  if (!path.empty() && path.front() == '/') return false;
  for (size_t at = 0; at < path.size();) {
    const size_t slash = std::min(path.find('/', at), path.size());
    const std::string part = path.substr(at, slash - at);
    if (part == "..") return false;
    if (!part.empty() && part != ".") parts.push_back(part);
    at = slash + 1;
  }
  return true;
}

int walk(int root, const std::vector<std::string>& parts, bool make) {
  constexpr int kFlags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  int fd = ::openat(root, ".", kFlags);
  for (const std::string& part : parts) {
    if (fd < 0) break;
    int next = ::openat(fd, part.c_str(), kFlags);
    if (next < 0 && errno == ENOENT && make &&
        (::mkdirat(fd, part.c_str(), 0777) == 0 || errno == EEXIST)) {
      next = ::openat(fd, part.c_str(), kFlags);
    }
    const int saved = errno;
    ::close(fd);
    errno = saved;
    fd = next;
  }
  return fd;
}

/// The directory that holds the last part of `path`, and that part; -1 with errno.
int openParent(int root, const std::string& path, bool make, std::string& name) {
  std::vector<std::string> parts;
  if (!split(path, parts) || parts.empty()) {
    errno = EINVAL;
    return -1;
  }
  name = parts.back();
  parts.pop_back();
  return walk(root, parts, make);
}

}  // namespace

int openBeneath(int root, const std::string& path, bool make) {
  std::vector<std::string> parts;
  if (!split(path, parts)) {
    errno = EINVAL;
    return -1;
  }
  return walk(root, parts, make);
}

bool makeLink(int root, const std::string& path, const std::string& target) {
  std::string name;
  const int parent = openParent(root, path, true, name);
  if (parent < 0) return false;
  bool made = ::symlinkat(target.c_str(), parent, name.c_str()) == 0;
  if (!made && errno == EEXIST) {
    if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) == 0) {
      made = ::symlinkat(target.c_str(), parent, name.c_str()) == 0;
    } else {
      errno = EEXIST;
    }
  }
  const int saved = errno;
  ::close(parent);
  errno = saved;
  return made;
}

bool removeLink(int root, const std::string& path, const std::string& target) {
  std::string name;
  const int parent = openParent(root, path, false, name);
  if (parent < 0) return errno == ENOENT || errno == ENOTDIR;  // the command removed the way there
  std::string found(target.size() + 1, '\0');
  const ssize_t n = ::readlinkat(parent, name.c_str(), found.data(), found.size());
  bool gone = true;
  int saved = errno;
  if (n >= 0 && found.compare(0, static_cast<size_t>(n), target) == 0) {
    gone = ::unlinkat(parent, name.c_str(), 0) == 0;
    saved = errno;
  }
  ::close(parent);
  errno = saved;
  return gone;
}

}  // namespace kilnfs::supervise
