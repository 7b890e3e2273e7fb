// Named points where a test can make the process die, as kill -9 would. Inert unless armed: one
// load of a null pointer.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstring>

namespace kilnfs {

/// The name of the armed point, or null. Set by tests (in a child process) only; `armedAfter`
/// counts how many passes to let go by first.
inline std::atomic<const char*> armedFault{nullptr};
inline std::atomic<int> armedAfter{0};

inline void faultPoint(const char* name) {
  const char* armed = armedFault.load(std::memory_order_relaxed);
  if (armed != nullptr && std::strcmp(armed, name) == 0 && armedAfter.fetch_sub(1) <= 0) {
    ::_exit(99);
  }
}

}  // namespace kilnfs
