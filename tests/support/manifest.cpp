#include "tests/support/manifest.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <filesystem>
#include <set>
#include <sstream>
#include <vector>

#include "tests/support/temp_dir.h"

namespace kilnfs::testing {
namespace {

constexpr time_t kNew = 1600000000;  // tests give older times to what they want to be compared

std::string xattrs(const std::string& path) {
  std::vector<char> names(XATTR_LIST_MAX);
  const ssize_t size = ::llistxattr(path.c_str(), names.data(), names.size());
  std::set<std::string> all;
  for (ssize_t at = 0; at < size;) {
    const std::string name = &names[static_cast<size_t>(at)];
    at += static_cast<ssize_t>(name.size()) + 1;
    std::string value(XATTR_SIZE_MAX, '\0');
    const ssize_t n = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    value.resize(n > 0 ? static_cast<size_t>(n) : 0);
    all.insert(name + "=" + value);
  }
  std::string out;
  for (const std::string& each : all) out += " [" + each + "]";
  return out;
}

std::string content(const std::string& path, const struct stat& st) {
  if (S_ISLNK(st.st_mode)) return " -> " + std::filesystem::read_symlink(path).string();
  if (!S_ISREG(st.st_mode)) return "";
  const std::string text = readFile(path);
  // Sparse files are large: the block count is not compared, as it is the file system's affair.
  return " " + std::to_string(text.size()) + ":" + std::to_string(std::hash<std::string>()(text)) +
         ":" + text.substr(0, 20);
}

}  // namespace

std::map<std::string, std::string> manifest(const std::string& root) {
  std::map<ino_t, std::vector<std::string>> links;
  std::map<std::string, std::string> out;
  std::vector<std::string> todo = {"."};
  while (!todo.empty()) {
    const std::string path = todo.back();
    todo.pop_back();
    const std::string full = root + "/" + path;
    struct stat st = {};
    if (::lstat(full.c_str(), &st) != 0) {
      out[path] = std::string("can't be looked at: ") + std::strerror(errno);
      continue;
    }
    std::ostringstream line;
    line << std::oct << st.st_mode << std::dec << " " << st.st_uid << ":" << st.st_gid;
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
      line << " dev " << major(st.st_rdev) << ":" << minor(st.st_rdev);
    }
    if (st.st_mtim.tv_sec < kNew) {
      line << " @" << st.st_mtim.tv_sec << "." << st.st_mtim.tv_nsec;
    } else {
      line << " new";
    }
    line << xattrs(full) << content(full, st);
    out[path] = line.str();
    if (!S_ISDIR(st.st_mode)) {
      links[st.st_ino].push_back(path);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(full)) {
      todo.push_back(path + "/" + entry.path().filename().string());
    }
  }
  for (auto& [ino, paths] : links) {
    std::sort(paths.begin(), paths.end());
    for (const std::string& path : paths) {
      if (paths.size() > 1) out[path] += " = " + paths.front();
    }
  }
  return out;
}

std::string difference(const std::map<std::string, std::string>& a,
                       const std::map<std::string, std::string>& b) {
  std::string out;
  for (const auto& [path, line] : a) {
    const auto other = b.find(path);
    if (other == b.end()) {
      out += "only in the first: " + path + ": " + line + "\n";
    } else if (other->second != line) {
      out += path + ":\n  " + line + "\n  " + other->second + "\n";
    }
  }
  for (const auto& [path, line] : b) {
    if (a.count(path) == 0) out += "only in the second: " + path + ": " + line + "\n";
  }
  return out;
}

}  // namespace kilnfs::testing
