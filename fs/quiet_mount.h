// The store's file system by a mount of its own that nobody else sees, without access times: a file
// that the kernel reads by itself, for a reader of the mounted tree, must not be written to by
// that.
#pragma once

#include <string>

#include "store/base/fd.h"

namespace kilnfs {

class QuietMount {
 public:
  /// Of the file system that `path` is on. Without the right to mount it opens nothing.
  explicit QuietMount(const std::string& path);

  /// The file of `fd`, open for reading by this mount; not valid if that can't be. Thread-safe.
  UniqueFd reopen(int fd) const;

 private:
  UniqueFd root_;
};

}  // namespace kilnfs
