// Whether reading a file of the store moves its access time, as mount(8) says of noatime, relatime
// and strictatime.
#pragma once

#include <sys/stat.h>

#include <ctime>
#include <string>

namespace kilnfs {

class AccessTimes {
 public:
  enum class Kept { never, relatively, always };
  explicit AccessTimes(Kept kept) : kept_(kept) {}
  /// On the file system that `path` is on.
  explicit AccessTimes(const std::string& path);

  /// Whether reading a file of these attributes moves its access time, at `now`. A file system may
  /// still not do so.
  bool move(const struct stat& st, time_t now) const;

 private:
  const Kept kept_;
};

}  // namespace kilnfs
