#include "fs/stale_names.h"

#include <tuple>

#include "fs/fuse_compat.h"

namespace kilnfs {

void StaleNames::drop(uint64_t parent, std::string name, bool gone) {
  {
    const std::lock_guard lock(mutex_);
    ++underway_;
  }
  later_([this, parent, gone, name = std::move(name)] {
    if (!ended_) tell(parent, name, gone);
    const std::lock_guard lock(mutex_);
    if (--underway_ == 0) done_.notify_all();
  });
}

void StaleNames::tell(uint64_t parent, const std::string& name, bool gone) const {
  // ENOENT: it did not know the name.
  std::ignore = canExpire_ && !gone
                    ? fuseExpire(session_, parent, name)
                    : fuse_lowlevel_notify_inval_entry(session_, parent, name.c_str(), name.size());
}

void StaleNames::settle() {
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return underway_ == 0; });
}

}  // namespace kilnfs
