#include "fs/access_times.h"

#include <sys/statvfs.h>

namespace kilnfs {
namespace {

constexpr time_t kDay = 24L * 60 * 60;

bool before(const struct timespec& a, const struct timespec& b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

AccessTimes::Kept keptOn(const std::string& path) {
  struct statvfs st = {};
  if (::statvfs(path.c_str(), &st) != 0) return AccessTimes::Kept::always;
  if ((st.f_flag & ST_NOATIME) != 0) return AccessTimes::Kept::never;
  return (st.f_flag & ST_RELATIME) != 0 ? AccessTimes::Kept::relatively : AccessTimes::Kept::always;
}

}  // namespace

AccessTimes::AccessTimes(const std::string& path) : kept_(keptOn(path)) {}

bool AccessTimes::move(const struct stat& st, time_t now) const {
  if (kept_ != Kept::relatively) return kept_ == Kept::always;
  return !before(st.st_mtim, st.st_atim) || !before(st.st_ctim, st.st_atim) ||
         now - st.st_atim.tv_sec >= kDay;
}

}  // namespace kilnfs
