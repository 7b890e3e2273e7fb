// A snapshot: an immutable directory tree in the store. Held by a shared_ptr, its files stay
// readable through open descriptors even after it was deleted (they are freed in the background).
#pragma once

#include "store/base/name.h"
#include "store/tree_root.h"

namespace kilnfs {

class Snapshot : public TreeRoot {
 public:
  Snapshot(int areaFd, std::string areaPath, std::string name, std::string key, bool sharesInodes)
      : TreeRoot(areaFd, std::move(areaPath), std::move(name), std::move(key)),
        sharesInodes_(sharesInodes) {}

  /// True in a hardlink store: a file's link count on disk also counts links from other snapshots,
  /// so the count inside the tree has to be found by counting.
  bool sharesInodes() const { return sharesInodes_; }

 private:
  const bool sharesInodes_;
};

}  // namespace kilnfs
