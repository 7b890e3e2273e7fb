// Reads a directory in its file system's own order and with its own cookies, from any cookie on, so
// that entries made or removed meanwhile neither hide nor repeat the others. Thread-safe.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "store/base/error.h"
#include "store/base/fd.h"

namespace kilnfs {

class DirectoryStream {
 public:
  struct Item {
    const char* name;    // valid during the call
    uint64_t ino;        // as on disk
    unsigned char type;  // DT_*
    off_t next;          // the cookie of the item after this one
  };

  explicit DirectoryStream(UniqueFd fd) : fd_(std::move(fd)) {}
  /// Owned by this object.
  int fd() const { return fd_.get(); }

  /// Gives the items from the cookie `from` on (0: the start, read afresh) to `fn` until that says
  /// false: the item was not taken. "." and ".." are among them. `fn` must not call back.
  Status read(off_t from, const std::function<bool(const Item&)>& fn);

  /// What was read ahead is not to be given any more: the directory was changed.
  void expire() { expired_ = true; }

 private:
  Status fill();

  const UniqueFd fd_;
  std::atomic<bool> expired_{false};
  std::mutex mutex_;
  std::vector<char> buffer_;  // guarded by mutex_, as what follows
  size_t used_ = 0;           // bytes in buffer_
  size_t at_ = 0;             // the next item in buffer_
  off_t position_ = 0;        // its cookie
  bool ended_ = false;        // nothing follows what is in buffer_
};

}  // namespace kilnfs
