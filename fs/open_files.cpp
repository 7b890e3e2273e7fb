#include "fs/open_files.h"

namespace kilnfs {

int OpenFiles::begin(uint64_t node, bool mappable, const std::function<int()>& first) {
  Shard& s = shard(node);
  const std::lock_guard lock(s.mutex);
  State& state = s.states[node];
  if (state.opens == 0 && first) state.backing = first();
  ++state.opens;
  if (state.backing != 0 && mappable) state.mappable = true;
  return state.backing;
}

void OpenFiles::settle(uint64_t node) {
  const std::lock_guard lock(shard(node).mutex);
}

bool OpenFiles::end(uint64_t node) {
  State last;
  {
    Shard& s = shard(node);
    const std::lock_guard lock(s.mutex);
    const auto at = s.states.find(node);
    if (at == s.states.end() || --at->second.opens > 0) return false;
    last = at->second;
    s.states.erase(at);
  }
  if (last.backing != 0) {
    const std::lock_guard lock(unusedMutex_);
    unused_.push_back(last.backing);
  }
  return last.mappable;
}

bool OpenFiles::mappable(uint64_t node) const {
  const Shard& s = shard(node);
  const std::lock_guard lock(s.mutex);
  const auto at = s.states.find(node);
  return at != s.states.end() && at->second.mappable;
}

std::vector<int> OpenFiles::takeUnused() {
  const std::lock_guard lock(unusedMutex_);
  return std::move(unused_);
}

}  // namespace kilnfs
