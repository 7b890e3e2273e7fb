// What is known of a result's files without reading them: those that are the very files of its
// base, whose manifest has their digests. Both trees are gone through in the same order, so nothing
// has to be remembered. Not thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "store/base/fd.h"
#include "store/manifest.h"

namespace kilnfs {

class KnownContent {
 public:
  /// `base`: the root directory of the base result; `manifest`: of that.
  KnownContent(UniqueFd base, ManifestReader manifest)
      : base_(std::move(base)), manifest_(std::move(manifest)) {}

  /// For files in the order of TreeWalk. Nothing if it is not known.
  std::optional<std::string> of(const std::string& path, const struct stat& st);

 private:
  bool advance();

  UniqueFd base_;
  ManifestReader manifest_;
  std::string path_;           // of the directory that the manifest's next entry is in
  std::string at_;             // of the last entry read
  ManifestEntry entry_;        // the last one read
  std::vector<size_t> above_;  // sizes of path_ in the directories above
  bool ended_ = false;
};

}  // namespace kilnfs
