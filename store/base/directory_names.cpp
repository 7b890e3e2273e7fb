#include "store/base/directory_names.h"

#include <dirent.h>
#include <fcntl.h>

#include <memory>
#include <string_view>

#include "store/base/fd.h"

namespace kilnfs {

namespace {

/// A descriptor with an offset of its own: reading moves that.
UniqueFd openAgain(int dirFd) {
  UniqueFd again(::openat(dirFd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // "." is looked for in the directory, which who may read it need not be allowed to.
  if (!again.valid() && errno == EACCES) {
    const std::string path = "/proc/self/fd/" + std::to_string(dirFd);
    again.reset(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  return again;
}

/// Calls `visit` with each name until that returns false.
template <class Visit>
Status eachName(int dirFd, Visit visit) {
  UniqueFd copy = openAgain(dirFd);
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(copy.valid() ? ::fdopendir(copy.get()) : nullptr,
                                                ::closedir);
  if (!dir) return failErrno("read a directory");
  copy.release();
  errno = 0;
  while (const struct dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != ".." && !visit(name)) return {};
    errno = 0;
  }
  if (errno != 0) return failErrno("read a directory");
  return {};
}

}  // namespace

Expected<std::vector<std::string>> directoryNames(int dirFd) {
  std::vector<std::string> names;
  auto read = eachName(dirFd, [&names](std::string_view name) {
    names.emplace_back(name);
    return true;
  });
  if (!read) return Failure(read.error());
  return names;
}

Expected<bool> isEmptyDirectory(int dirFd) {
  bool empty = true;
  auto read = eachName(dirFd, [&empty](std::string_view) { return empty = false; });
  if (!read) return Failure(read.error());
  return empty;
}

}  // namespace kilnfs
