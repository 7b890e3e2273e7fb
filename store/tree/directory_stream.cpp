#include "store/tree/directory_stream.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

namespace kilnfs {
namespace {

constexpr size_t kBuffer = 64 * 1024;

// What getdents64 writes before each name.
struct __attribute__((packed)) Dirent {
  uint64_t ino;
  int64_t off;
  uint16_t length;
  unsigned char type;
};

}  // namespace

Status DirectoryStream::fill() {
  buffer_.resize(kBuffer);
  const long n = ::syscall(SYS_getdents64, fd_.get(), buffer_.data(), buffer_.size());
  if (n < 0) return fail(errno);
  used_ = static_cast<size_t>(n);
  at_ = 0;
  ended_ = n == 0;
  if (ended_) std::vector<char>().swap(buffer_);  // many directories are kept open
  return {};
}

Status DirectoryStream::read(off_t from, const std::function<bool(const Item&)>& fn) {
  const std::lock_guard lock(mutex_);
  if (expired_.exchange(false) || from == 0 || from != position_) {
    if (::lseek(fd_.get(), from, SEEK_SET) < 0) return fail(errno);
    used_ = at_ = 0;
    position_ = from;
    ended_ = false;
  }
  for (;;) {
    if (at_ == used_) {
      if (ended_) return {};
      if (auto filled = fill(); !filled) return filled;
      if (used_ == 0) return {};
    }
    Dirent entry;
    std::memcpy(&entry, buffer_.data() + at_, sizeof entry);
    const char* name = buffer_.data() + at_ + sizeof entry;
    if (!fn({name, entry.ino, entry.type, entry.off})) return {};
    at_ += entry.length;
    position_ = entry.off;
  }
}

}  // namespace kilnfs
