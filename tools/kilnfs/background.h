// Going to the background: the caller returns once the mount answers, or says why it does not.
#pragma once

#include <string>

#include "store/base/fd.h"

namespace kilnfs {

/// The daemon's end, in the process that goes on.
class Background {
 public:
  Background() = default;
  explicit Background(UniqueFd caller) : caller_(std::move(caller)) {}
  /// Lets the caller return success, and lets go of its terminal. At most once; without a
  /// background it does nothing.
  void ready();

 private:
  UniqueFd caller_;
};

/// Forks. In the caller it waits until `mountpoint` answers and ends the process with the exit
/// status; it returns in the child only. To be called before any thread is started.
Background goToBackground(const std::string& mountpoint);

}  // namespace kilnfs
