// The log of a build as one stream, from byte 0 to the end of the build: waits for what is not
// written yet, and goes on with the next log when the build is tried again.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "store/base/interrupt.h"
#include "store/build/builds.h"
#include "store/store.h"

namespace kilnfs {

class FollowedLog {
 public:
  /// ENOENT: no such build is under way, and there is no log of it.
  static Expected<std::unique_ptr<FollowedLog>> open(Store& store, const Builds& builds,
                                                     const Id& id);
  /// At least one byte from `offset` on, or nothing at the end. Blocks. EINTR. Thread-safe.
  Expected<std::string> read(uint64_t offset, size_t size, Interrupt& interrupt);

 private:
  class Waiter;
  FollowedLog(Store& store, const Builds& builds, const Id& id)
      : store_(store), builds_(builds), id_(id) {}
  Expected<std::string> readNow(uint64_t offset, size_t size) const;
  bool takeNext();

  struct Part {
    UniqueFd fd;
    uint64_t size = 0;  // known once there is a next part
  };
  Store& store_;
  const Builds& builds_;
  const Id id_;
  mutable std::mutex mutex_;
  std::vector<Part> parts_;  // guarded by mutex_; one for each attempt
};

}  // namespace kilnfs
