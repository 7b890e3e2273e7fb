// Has something happen at a named point of the store (store/base/fault.h), which no other timing
// would hit for certain.
#pragma once

#include <functional>
#include <utility>

#include "store/base/fault.h"

namespace kilnfs::testing {

class Meanwhile {
 public:
  /// `what` is done once, by the first thread that comes by after so many `passes`.
  Meanwhile(const char* point, std::function<void()> what, int passes = 0) {
    action() = std::move(what);
    armedAfter = passes;
    atArmedFault = [] {
      armedFault = nullptr;
      action()();
    };
    armedFault = point;
  }
  ~Meanwhile() {
    armedFault = nullptr;
    atArmedFault = [] { ::_exit(99); };
  }
  Meanwhile(const Meanwhile&) = delete;
  Meanwhile& operator=(const Meanwhile&) = delete;

 private:
  static std::function<void()>& action() {
    static std::function<void()> what;
    return what;
  }
};

}  // namespace kilnfs::testing
