// Named points where a test can make the process die, as kill -9 would, or do something of its own.
// Inert unless armed: one load of a null pointer.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

namespace kilnfs {

/// The name of the armed point, or null. Set by tests only (in a child process, or by the daemon's
/// hidden option `fault=`); `armedAfter` counts how many passes to let go by first.
inline std::atomic<const char*> armedFault{nullptr};
inline std::atomic<int> armedAfter{0};
/// What happens there.
inline std::atomic<void (*)()> atArmedFault{[] { ::_exit(99); }};

inline void faultPoint(const char* name) {
  const char* armed = armedFault.load(std::memory_order_relaxed);
  if (armed != nullptr && std::strcmp(armed, name) == 0 && armedAfter.fetch_sub(1) <= 0) {
    atArmedFault.load()();
  }
}

/// Arms "NAME", or "NAME:PASSES" to let that many go by first. Once in a process, before threads.
inline void armFault(const std::string& what) {
  static std::string name;
  const size_t colon = what.find(':');
  name = what.substr(0, colon);
  armedAfter = colon == std::string::npos ? 0 : std::atoi(what.c_str() + colon + 1);
  armedFault = name.c_str();
}

}  // namespace kilnfs
