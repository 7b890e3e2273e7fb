// A plain directory tree on disk, entry by entry, always in the same order: a directory, then what
// is in it sorted by name, then its end. Holds few descriptors and no recursion, however deep the
// tree is, and follows no symbolic link. For trees that nobody changes meanwhile. Not thread-safe.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <vector>

#include "store/base/error.h"
#include "store/base/fd.h"

namespace kilnfs {

class TreeWalk {
 public:
  struct Item {
    bool leaves = false;  // the end of the directory that was entered last; nothing else is set
    std::string name;     // "." for the root
    struct stat attributes;
    int dirFd = -1;           // where `name` can be opened, until the next call
    bool unreadable = false;  // a directory whose names can't be read: its end follows
  };

  explicit TreeWalk(UniqueFd root) : current_(std::move(root)) {}

  /// False at the end. After an error there is nothing more to be had.
  Expected<bool> next(Item& item);
  /// Where the last item is, below the root (empty: the root itself).
  const std::string& path() const { return path_; }

 private:
  struct Frame {
    std::vector<std::string> names;
    size_t next = 0;
    uint64_t dev = 0, ino = 0;
    size_t pathSize = 0;  // of the directory's own path
    UniqueFd fd;          // of the directory, while one below it is current; not of the deepest
  };

  Expected<bool> start(Item& item);
  Status enter(UniqueFd fd, Item& item);
  Status leave();

  UniqueFd current_;  // of the directory of the last frame
  std::vector<Frame> frames_;
  std::string path_;
  bool started_ = false;
  bool descend_ = false;  // the last item was a directory: what follows is in it
};

}  // namespace kilnfs
