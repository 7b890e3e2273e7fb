#include "store/overlay_base.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <cstring>
#include <string_view>
#include <vector>

#include "store/tree/directory_stream.h"
#include "store/tree/system.h"

namespace kilnfs {
namespace {

class Check {
 public:
  Check(const Snapshot& snapshot, bool ownPart) : snapshot_(snapshot), ownPart_(ownPart) {}

  Expected<bool> run() {
    todo_.emplace_back();
    while (!todo_.empty()) {
      const std::string path = std::move(todo_.back());
      todo_.pop_back();
      if (ownPart_ && !snapshot_.isHere(path)) continue;
      auto plain = directory(path);
      if (!plain || !*plain) return plain;
    }
    return true;
  }

 private:
  Expected<bool> directory(const std::string& path) {
    auto fd = snapshot_.open(path, O_RDONLY | O_DIRECTORY);
    if (!fd) return Failure(fd.error());
    const std::string at = procPath(fd->get()) + "/.";
    bool plain = !hasOverlayAttribute(at);
    DirectoryStream stream(std::move(*fd));
    auto read = stream.read(0, [&](const DirectoryStream::Item& item) {
      const std::string name = item.name;
      if (name == "." || name == "..") return true;
      if (item.type == DT_DIR) {
        todo_.push_back(path.empty() ? name : path + "/" + name);
        return true;
      }
      plain = plain && plainEntry(stream.fd(), at, name, item.type, path);
      return plain;
    });
    if (!read) return Failure(read.error());
    return plain;
  }

  bool plainEntry(int dir, const std::string& at, const std::string& name, unsigned char type,
                  const std::string& path) {
    struct stat st = {};
    if (type == DT_CHR || type == DT_UNKNOWN) {
      if (::fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return false;
      if (S_ISCHR(st.st_mode) && st.st_rdev == 0) return false;
      if (S_ISDIR(st.st_mode)) {
        todo_.push_back(path.empty() ? name : path + "/" + name);
        return true;
      }
    }
    return !hasOverlayAttribute(at + "/" + name);
  }

  bool hasOverlayAttribute(const std::string& path) {
    const ssize_t size = ::llistxattr(path.c_str(), names_.data(), names_.size());
    if (size < 0) return errno != EOPNOTSUPP;
    for (ssize_t at = 0; at < size; at += static_cast<ssize_t>(std::strlen(&names_[at])) + 1) {
      if (std::string_view(&names_[at]).starts_with("trusted.overlay.")) return true;
    }
    return false;
  }

  const Snapshot& snapshot_;
  const bool ownPart_;
  std::vector<std::string> todo_;
  std::vector<char> names_ = std::vector<char>(XATTR_LIST_MAX);
};

}  // namespace

Expected<bool> plainToOverlayfs(const Snapshot& snapshot) {
  return Check(snapshot, false).run();
}

Expected<bool> ownPartPlainToOverlayfs(const Snapshot& snapshot) {
  return Check(snapshot, true).run();
}

}  // namespace kilnfs
