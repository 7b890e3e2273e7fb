// The command's own view of its directory: the directory on disk, bound over the mount's.
#pragma once

#include <string>

#include "tools/supervise/options.h"

namespace kilnfs::supervise {

/// Everybody else goes on seeing the directory through the mount: this is in a mount namespace
/// that only we, and what we start, are in.
class View {
 public:
  View() = default;
  ~View();
  View(const View&) = delete;
  View& operator=(const View&) = delete;

  /// Enters (or makes) the namespace and puts options.bind over options.dir. False, with `error`
  /// set to "ERRNO TEXT".
  bool enter(const Options& options, std::string& error);

  /// The root of the view, once entered; -1 before. Owned by this object.
  int fd() const { return tree_; }

  /// Makes the view read-only for good, after all that we started has gone: what is saved must not
  /// change any more. Somebody may have been handed a file that is open for writing: then, after
  /// some patience, sets `error`.
  void close(std::string& error);

 private:
  int tree_ = -1;
};

}  // namespace kilnfs::supervise
