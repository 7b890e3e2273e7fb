// overlayfs's index: which files of the base that have several names were changed in an overlay.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "store/base/error.h"
#include "store/base/fd.h"
#include "store/snapshot.h"

namespace kilnfs {

class OverlayIndex {
 public:
  struct File {
    std::string entry;                                       // its name in the index
    BackingId id;                                            // the changed file
    BackingId origin;                                        // the base's file
    UniqueFd lower;                                          // that, O_PATH
    std::vector<std::pair<std::string, std::string>> names;  // {directory, name} in the upper one
    size_t namesBelowStubs = 0;
  };

  /// Reads the index that is in the work directory `work` of `areaFd`, and takes overlayfs's
  /// attributes off these files; an index that is missing is empty. A file that has one name
  /// inside the base is left out.
  static Expected<OverlayIndex> read(int areaFd, const std::string& work, const Snapshot& base);

  bool empty() const { return files_.empty(); }
  /// Whether the command gave none of them attributes of overlayfs's names.
  bool plain() const { return plain_; }
  const std::vector<File>& files() const { return files_; }
  /// The index itself.
  int fd() const { return fd_.get(); }

  /// What the base's file `origin` has become: its name in the index.
  std::optional<std::string> changed(const BackingId& origin) const;
  /// A name in the upper directory of a file that may be one of these: by inode number, or by the
  /// base's file.
  bool addName(uint64_t ino, const std::string& path, const std::string& name);
  void addName(const BackingId& origin, const std::string& path, const std::string& name);
  /// Counts names of the base's files in and below its directory `path`.
  Status countBelow(const Snapshot& base, const std::string& path);

 private:
  Status add(const std::string& entry, const Snapshot& base, int baseFd);

  UniqueFd fd_;
  std::vector<File> files_;
  bool plain_ = true;
  std::unordered_map<uint64_t, size_t> byIno_;
  std::unordered_map<BackingId, size_t, HashBackingId> byOrigin_;
};

}  // namespace kilnfs
