#include "tools/kilnfs/mountpoint.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "fs/connection.h"
#include "store/base/mountinfo.h"

namespace kilnfs {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
struct Free {
  void operator()(char* text) const { ::free(text); }
};

Expected<std::string> absolute(const std::string& path) {
  const std::unique_ptr<char, Free> real(::realpath(path.c_str(), nullptr));
  if (!real) return failErrno(path);
  return std::string(real.get());
}

bool within(const std::string& path, const std::string& directory) {
  if (directory == "/") return true;
  return path.starts_with(directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

Status checkEmpty(const std::string& path) {
  const std::unique_ptr<DIR, CloseDir> dir(::opendir(path.c_str()));
  if (!dir) return failErrno("mount point " + path);
  while (const dirent* entry = ::readdir(dir.get())) {
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) {
      const auto real = absolute(path);
      if (real && isMounted("fuse.kilnfs", *real)) {
        return fail(EBUSY, "mount point " + path + ": a kilnfs is mounted there already");
      }
      return fail(ENOTEMPTY, "mount point " + path + " is not empty: give an empty directory");
    }
  }
  return {};
}

}  // namespace

Expected<std::string> prepareMountpoint(const std::string& path) {
  struct stat st;
  struct statfs space;  // the attributes of a mount's root may be known without its daemon
  if (::stat(path.c_str(), &st) != 0 || ::statfs(path.c_str(), &space) != 0) {
    if (errno == ENOTCONN) {
      fmt::print(stderr, "kilnfs: {}: clearing the mount of a daemon that is gone\n", path);
      if (auto done = detachMount(path); !done) return Failure(done.error());
      return prepareMountpoint(path);
    }
    if (errno == ENOENT) {
      return fail(ENOENT, "mount point " + path + " does not exist: make it with mkdir");
    }
    return failErrno("mount point " + path);
  }
  if (!S_ISDIR(st.st_mode)) {
    return fail(ENOTDIR, "mount point " + path + " is not a directory: give an empty directory");
  }
  if (auto empty = checkEmpty(path); !empty) return Failure(empty.error());
  return absolute(path);
}

Expected<std::string> resolveStore(const std::string& path, const std::string& mountpoint) {
  // Its last component may not exist yet; the rest must.
  auto real = absolute(path);
  if (!real && real.error().code == ENOENT) {
    std::string trimmed = path;
    while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
    const size_t slash = trimmed.rfind('/');
    const auto parent = absolute(slash == std::string::npos ? "." : trimmed.substr(0, slash + 1));
    if (!parent) {
      return fail(parent.error().code, "store " + path +
                                           ": the directory it is to be in does not " +
                                           "exist: make it with mkdir -p");
    }
    const std::string name = slash == std::string::npos ? trimmed : trimmed.substr(slash + 1);
    real = *parent == "/" ? "/" + name : *parent + "/" + name;
  }
  if (!real) return fail(real.error().code, "store " + real.error().message);
  if (within(mountpoint, *real) || within(*real, mountpoint)) {
    return fail(EINVAL, "store " + *real + " and mount point " + mountpoint +
                            " must not be inside one another: mount it somewhere else");
  }
  return real;
}

}  // namespace kilnfs
