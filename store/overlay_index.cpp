#include "store/overlay_index.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cstring>

#include "store/overlay_xattr.h"
#include "store/tree/directory_stream.h"
#include "store/tree/system.h"

namespace kilnfs {
namespace {

// An entry's name is, in hexadecimal, what overlayfs calls a file handle: version, a magic byte,
// the length of it all, flags, the type of the file system's own handle, the file system's UUID,
// and that handle.
constexpr size_t kMagicAt = 1;
constexpr size_t kLengthAt = 2;
constexpr size_t kTypeAt = 4;
constexpr size_t kHandleAt = 21;
constexpr unsigned char kHandleMagic = 0xfb;

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

std::vector<unsigned char> bytesOf(const std::string& hex) {
  std::vector<unsigned char> out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    const int high = digit(hex[i]);
    const int low = digit(hex[i + 1]);
    if (high < 0 || low < 0) return {};
    out.push_back(static_cast<unsigned char>(high * 16 + low));
  }
  return out;
}

/// The file that an entry of the index is named after.
Expected<UniqueFd> openOrigin(const std::string& entry, int baseFd) {
  const std::vector<unsigned char> bytes = bytesOf(entry);
  if (bytes.size() <= kHandleAt || bytes[kMagicAt] != kHandleMagic ||
      bytes[kLengthAt] != bytes.size()) {
    return fail(EIO, "the overlay's index has an entry that can't be understood: " + entry);
  }
  const size_t size = bytes.size() - kHandleAt;
  alignas(struct file_handle) char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
  auto* handle = new (room) file_handle;
  if (size > MAX_HANDLE_SZ) return fail(EIO, "a file handle is too long");
  handle->handle_bytes = static_cast<unsigned>(size);
  handle->handle_type = bytes[kTypeAt];
  std::memcpy(handle->f_handle, bytes.data() + kHandleAt, size);
  UniqueFd fd(::open_by_handle_at(baseFd, handle, O_PATH | O_CLOEXEC));
  if (!fd.valid()) return failErrno("open a file by its handle");
  return fd;
}

}  // namespace

Expected<OverlayIndex> OverlayIndex::read(int areaFd, const std::string& work,
                                          const Snapshot& base) {
  OverlayIndex out;
  const std::string path = work + "/index";
  out.fd_.reset(::openat(areaFd, path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!out.fd_.valid()) {
    if (errno == ENOENT) return out;
    return failErrno("open the overlay's index");
  }
  UniqueFd own(::openat(out.fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!own.valid()) return failErrno("read the overlay's index");
  std::vector<std::string> entries;
  DirectoryStream stream(std::move(own));
  auto read = stream.read(0, [&](const DirectoryStream::Item& item) {
    if (item.name[0] != '.' && item.name[0] != '#') entries.emplace_back(item.name);
    return true;
  });
  if (!read) return Failure(read.error());
  if (entries.empty()) return out;
  auto baseFd = base.open("", O_RDONLY | O_DIRECTORY);
  if (!baseFd) return Failure(baseFd.error());
  for (const std::string& entry : entries) {
    if (auto ok = out.add(entry, base, baseFd->get()); !ok) return Failure(ok.error());
  }
  return out;
}

Status OverlayIndex::add(const std::string& entry, const Snapshot& base, int baseFd) {
  File file;
  struct stat st = {};
  if (::fstatat(fd_.get(), entry.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    return failErrno("stat in the overlay's index");
  }
  // A white-out: no name of the file is left.
  if (S_ISCHR(st.st_mode) && st.st_rdev == 0) return {};
  file.id = backingId(st);
  auto lower = openOrigin(entry, baseFd);
  if (!lower) return Failure(lower.error());
  if (::fstat(lower->get(), &st) != 0) return failErrno("stat");
  file.origin = backingId(st);
  const auto names = base.linksInside(file.origin);
  if (!names) return Failure(names.error());
  // Its other names are in other results: it is a file like any other.
  if (*names < 2) return {};
  // Here, not by its names: there may be none yet.
  const auto plain = stripOverlay(procPath(fd_.get()) + "/" + entry);
  if (!plain) return Failure(plain.error());
  plain_ = plain_ && *plain;
  file.entry = entry;
  file.lower = std::move(*lower);
  byIno_[file.id.ino] = files_.size();
  byOrigin_[file.origin] = files_.size();
  files_.push_back(std::move(file));
  return {};
}

std::optional<std::string> OverlayIndex::changed(const BackingId& origin) const {
  const auto found = byOrigin_.find(origin);
  if (found == byOrigin_.end()) return std::nullopt;
  return files_[found->second].entry;
}

bool OverlayIndex::addName(uint64_t ino, const std::string& path, const std::string& name) {
  const auto found = byIno_.find(ino);
  if (found == byIno_.end()) return false;
  files_[found->second].names.emplace_back(path, name);
  return true;
}

void OverlayIndex::addName(const BackingId& origin, const std::string& path,
                           const std::string& name) {
  const auto found = byOrigin_.find(origin);
  if (found != byOrigin_.end()) files_[found->second].names.emplace_back(path, name);
}

Status OverlayIndex::countBelow(const Snapshot& base, const std::string& path) {
  auto fd = base.open(path, O_RDONLY | O_DIRECTORY);
  if (!fd) return Failure(fd.error());
  struct stat dir = {};
  if (::fstat(fd->get(), &dir) != 0) return failErrno("stat");
  std::vector<std::string> inner;
  DirectoryStream stream(std::move(*fd));
  auto read = stream.read(0, [&](const DirectoryStream::Item& item) {
    if (std::strcmp(item.name, ".") == 0 || std::strcmp(item.name, "..") == 0) return true;
    struct stat st = {};
    if (item.type == DT_UNKNOWN) ::fstatat(stream.fd(), item.name, &st, AT_SYMLINK_NOFOLLOW);
    if (item.type == DT_DIR || S_ISDIR(st.st_mode)) {
      inner.push_back(path.empty() ? item.name : path + "/" + item.name);
    } else if (const auto found = byOrigin_.find({item.ino, backingId(dir).dev});
               found != byOrigin_.end()) {
      ++files_[found->second].namesBelowStubs;
    }
    return true;
  });
  if (!read) return read;
  for (const std::string& each : inner) {
    if (auto ok = countBelow(base, each); !ok) return ok;
  }
  return {};
}

}  // namespace kilnfs
