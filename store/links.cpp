#include "store/links.h"

#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace kilnfs {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

// A listing says the inode number, so files need no stat.
Status listDirectory(UniqueFd fd, const std::string& path, std::vector<std::string>& directories,
                     std::vector<std::pair<uint32_t, uint64_t>>& files) {
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) return failErrno("stat");
  const uint32_t dev = backingId(st).dev;
  const int number = fd.get();
  const std::unique_ptr<DIR, CloseDir> dir(::fdopendir(number));
  if (!dir) return failErrno("read a directory");
  fd.release();
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr) return errno == 0 ? Status() : Status(failErrno("read a directory"));
    if (std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0) continue;
    bool isDirectory = entry->d_type == DT_DIR;
    if (entry->d_type == DT_UNKNOWN) {
      if (::fstatat(number, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) return failErrno("stat");
      isDirectory = S_ISDIR(st.st_mode);
    }
    if (isDirectory) {
      directories.push_back(path.empty() ? entry->d_name : path + "/" + entry->d_name);
    } else {
      files.emplace_back(dev, entry->d_ino);
    }
  }
}

}  // namespace

Status countLinks(const std::function<Expected<UniqueFd>(const std::string& path)>& open,
                  const std::function<void(const BackingId&, nlink_t)>& found) {
  std::vector<std::string> directories{""};
  std::vector<std::pair<uint32_t, uint64_t>> files;
  while (!directories.empty()) {
    const std::string path = std::move(directories.back());
    directories.pop_back();
    auto fd = open(path);
    if (!fd && fd.error().code == EACCES) continue;  // not ours to read, today as tomorrow
    if (!fd) return Failure(fd.error());
    if (auto ok = listDirectory(std::move(*fd), path, directories, files); !ok) return ok;
  }
  std::sort(files.begin(), files.end());
  for (auto it = files.begin(); it != files.end();) {
    const auto end = std::upper_bound(it, files.end(), *it);
    if (end - it > 1) found({it->second, it->first}, static_cast<nlink_t>(end - it));
    it = end;
  }
  return {};
}

}  // namespace kilnfs
