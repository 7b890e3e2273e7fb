// The listing of a directory of a workspace that was the snapshot's and has become own: another
// directory on disk, with cookies of its own. Whoever had begun to read the former one goes on
// there, so that no entry is missed or seen twice.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

namespace kilnfs {

struct FormerListing {
  std::string path;            // in the snapshot
  std::vector<off_t> cookies;  // that were given out, or could have been; sorted

  bool has(off_t cookie) const {
    return std::binary_search(cookies.begin(), cookies.end(), cookie);
  }
  /// What is between the own directory's cookies on disk and those that readers get, either way,
  /// so that they differ from the former ones. A number as good as any.
  static off_t own(off_t cookie) { return cookie ^ 0x2c1b3c6d297a2d39; }
};

/// Whether a tree's readers ask for the attributes of what they list: those of files are worth
/// giving with a listing only then. Thread-safe.
class ListingUse {
 public:
  void fileLookedUp() {
    if (score_ < kMost) score_ += 2;
  }
  /// Asked once for each answer; what was looked up is forgotten by and by.
  bool wantsFiles() {
    if (score_ <= 0) return false;
    --score_;
    return true;
  }

 private:
  static constexpr int kMost = 256;
  std::atomic<int> score_{0};
};

}  // namespace kilnfs
