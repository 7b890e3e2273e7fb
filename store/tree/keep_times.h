// Changes to a directory that its users do not see as such.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include "store/copy_on_write.h"

namespace kilnfs {

/// Puts a directory's times back: making what is in it own is no change that anybody asked for.
class KeepTimes {
 public:
  KeepTimes(CopyOnWrite& cow, int fd) : cow_(cow), fd_(fd) { ok_ = ::fstat(fd, &st_) == 0; }
  ~KeepTimes() {
    if (!ok_) return;
    const struct timespec shown = cow_.changeTime(backingId(st_), st_);
    const struct timespec times[2] = {st_.st_atim, st_.st_mtim};
    ::utimensat(fd_, "", times, AT_EMPTY_PATH);
    struct stat now;
    if (::fstat(fd_, &now) == 0) cow_.keepChangeTime(backingId(now), shown, now);
  }
  KeepTimes(const KeepTimes&) = delete;
  KeepTimes& operator=(const KeepTimes&) = delete;

 private:
  CopyOnWrite& cow_;
  const int fd_;
  struct stat st_ = {};
  bool ok_ = false;
};

}  // namespace kilnfs
