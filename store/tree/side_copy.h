// A copy of a file beside its tree, where nobody sees it, to take the file's place.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>

#include "store/backing_id.h"
#include "store/base/error.h"
#include "store/base/fd.h"
#include "store/tree_root.h"

namespace kilnfs {

class SideCopy {
 public:
  /// Of the file open at `from` (O_PATH will do). `keep`: as copyNode(). Blocks as long as the
  /// copying takes.
  static Expected<SideCopy> make(int from, const TreeRoot& tree, std::optional<uint64_t> keep);
  SideCopy(SideCopy&& other) noexcept;
  /// Removes it, if it is still beside the tree and nobody keeps it there.
  ~SideCopy() { remove(); }
  SideCopy(const SideCopy&) = delete;
  SideCopy& operator=(const SideCopy&) = delete;
  SideCopy& operator=(SideCopy&&) = delete;

  /// O_PATH.
  int fd() const { return fd_.get(); }
  struct stat attributes() const;
  BackingId id() const { return backingId(attributes()); }

  Status moveTo(int dirFd, const std::string& name);
  /// Leaves it beside the tree: says under which name.
  std::string keep();
  /// Leaves it without a name.
  void remove();
  UniqueFd takeFd() { return std::move(fd_); }

 private:
  SideCopy(int dirFd, std::string name, UniqueFd fd)
      : dirFd_(dirFd), name_(std::move(name)), fd_(std::move(fd)) {}

  int dirFd_;
  std::string name_;  // empty: not there any more, or not ours
  UniqueFd fd_;
};

}  // namespace kilnfs
