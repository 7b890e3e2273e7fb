// Has something happen at a named point of the store (store/base/fault.h), which no other timing
// would hit for certain.
#pragma once

#include <functional>
#include <utility>

#include "store/base/fault.h"

namespace kilnfs::testing {

class Meanwhile {
 public:
  /// `what` is done the first time that a thread comes by, by that thread.
  Meanwhile(const char* point, std::function<void()> what) {
    action() = std::move(what);
    armedAfter = 0;
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
