#include "store/base/directory_names.h"

#include <dirent.h>
#include <fcntl.h>

#include <memory>
#include <string_view>

#include "store/base/fd.h"

namespace kilnfs {

Expected<std::vector<std::string>> directoryNames(int dirFd) {
  // A descriptor of its own: reading moves the offset of the open directory.
  UniqueFd copy(::openat(dirFd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(copy.valid() ? ::fdopendir(copy.get()) : nullptr,
                                                ::closedir);
  if (!dir) return failErrno("read a directory");
  copy.release();
  std::vector<std::string> names;
  errno = 0;
  while (const struct dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) return failErrno("read a directory");
  return names;
}

}  // namespace kilnfs
