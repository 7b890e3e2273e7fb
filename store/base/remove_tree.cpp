#include "store/base/remove_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <memory>
#include <vector>

#include "store/base/fd.h"

namespace kilnfs {
namespace {

// A directory deeper than this is moved up beside the tree's root and deleted from there, so that
// the descriptors held stay few.
constexpr int kDeepest = 64;

class Remover {
 public:
  explicit Remover(int topFd) : topFd_(topFd) {}

  void remove(int dirFd, const std::string& name, int depth) {
    if (::unlinkat(dirFd, name.c_str(), 0) == 0 || errno == ENOENT) return;
    if (errno != EISDIR && errno != EPERM && errno != EACCES) return note(name);
    if (depth > kDeepest && moveUp(dirFd, name)) return;
    struct stat st = {};
    if (::fstatat(dirFd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(st.st_mode)) {
      errno = EPERM;
      return note(name);
    }
    if ((st.st_mode & S_IRWXU) != S_IRWXU) ::fchmodat(dirFd, name.c_str(), S_IRWXU, 0);
    clear(dirFd, name, st.st_dev, depth);
    if (::unlinkat(dirFd, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) note(name);
  }

  /// Deletes what was moved up, which may move up more.
  void finish() {
    while (!deep_.empty()) {
      const std::string name = deep_.back();
      deep_.pop_back();
      remove(topFd_, name, 0);
    }
  }

  Status status() const { return error_.code == 0 ? Status() : Status(Failure(error_)); }

 private:
  void clear(int dirFd, const std::string& name, dev_t dev, int depth) {
    UniqueFd fd(::openat(dirFd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat st = {};
    if (!fd.valid() || ::fstat(fd.get(), &st) != 0 || st.st_dev != dev) return note(name);
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(fd.get()), ::closedir);
    if (!dir) return note(name);
    const int inner = fd.release();  // closed with `dir`
    while (const struct dirent* entry = ::readdir(dir.get())) {
      const std::string child = entry->d_name;
      if (child != "." && child != "..") remove(inner, child, depth + 1);
    }
  }

  bool moveUp(int dirFd, const std::string& name) {
    const std::string up = fmt::format(".deep.{}.{}", static_cast<const void*>(this), moved_++);
    if (::renameat(dirFd, name.c_str(), topFd_, up.c_str()) != 0) return false;
    deep_.push_back(up);
    return true;
  }

  void note(const std::string& name) {
    const int code = errno;
    if (error_.code == 0) error_ = failErrno("delete " + inQuotes(name)).value();
    errno = code;
  }

  const int topFd_;
  std::vector<std::string> deep_;
  unsigned moved_ = 0;
  Error error_{0, {}};
};

}  // namespace

Status removeTree(int dirFd, const std::string& name) {
  Remover remover(dirFd);
  remover.remove(dirFd, name, 0);
  remover.finish();
  return remover.status();
}

}  // namespace kilnfs
