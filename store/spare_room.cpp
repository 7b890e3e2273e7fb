#include "store/spare_room.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdint>

namespace kilnfs {
namespace {

constexpr const char* kFile = "spare";
// What the database needs to be opened, and some deletions.
constexpr uint64_t kSize = 256 << 10;

uint64_t freeBytes(int fd) {
  struct statvfs st = {};
  if (::fstatvfs(fd, &st) != 0) return 0;
  return static_cast<uint64_t>(st.f_bavail) * st.f_frsize;
}

}  // namespace

void useSpareRoomIfFull(const Layout& layout) {
  const int state = layout.state().fd.get();
  if (freeBytes(state) >= kSize || ::unlinkat(state, kFile, 0) != 0) return;
  spdlog::warn("{}: the file system is full: what was kept for that is used now", layout.root());
}

void keepSpareRoom(const Layout& layout) {
  const int state = layout.state().fd.get();
  if (freeBytes(state) < 8 * kSize) return;
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  const UniqueFd fd(::openat(state, kFile, kFlags, 0600));
  if (!fd.valid()) return;  // it is there
  if (::fallocate(fd.get(), 0, 0, kSize) != 0) ::unlinkat(state, kFile, 0);
}

}  // namespace kilnfs
