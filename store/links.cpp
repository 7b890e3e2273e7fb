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
void listDirectory(UniqueFd fd, const std::string& path, std::vector<std::string>& directories,
                   std::vector<std::pair<uint32_t, uint64_t>>& files) {
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) return;
  const uint32_t dev = backingId(st).dev;
  const int number = fd.get();
  const std::unique_ptr<DIR, CloseDir> dir(::fdopendir(number));
  if (!dir) return;
  fd.release();
  while (const dirent* entry = ::readdir(dir.get())) {
    if (std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0) continue;
    bool isDirectory = entry->d_type == DT_DIR;
    if (entry->d_type == DT_UNKNOWN) {
      if (::fstatat(number, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
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

void countLinks(const std::function<Expected<UniqueFd>(const std::string& path)>& open,
                const std::function<void(const BackingId&, nlink_t)>& found) {
  std::vector<std::string> directories{""};
  std::vector<std::pair<uint32_t, uint64_t>> files;
  while (!directories.empty()) {
    const std::string path = std::move(directories.back());
    directories.pop_back();
    if (auto fd = open(path)) listDirectory(std::move(*fd), path, directories, files);
  }
  std::sort(files.begin(), files.end());
  for (auto it = files.begin(); it != files.end();) {
    const auto end = std::upper_bound(it, files.end(), *it);
    if (end - it > 1) found({it->second, it->first}, static_cast<nlink_t>(end - it));
    it = end;
  }
}

}  // namespace kilnfs
