#include "fs/open_files.h"

namespace kilnfs {

int OpenFiles::begin(uint64_t node, bool mappable, const std::function<int()>& first) {
  Shard& s = shard(node);
  Lock lock(s.mutex);
  waitPrepared(s, node, lock);
  if (s.states[node].opens++ == 0 && first) prepare(s, node, lock, first);
  State& state = s.states[node];
  if (state.backing != 0 && mappable) state.mappable = true;
  return state.backing;
}

void OpenFiles::waitPrepared(Shard& s, uint64_t node, Lock& lock) {
  s.prepared.wait(lock, [&] {
    const auto at = s.states.find(node);
    return at == s.states.end() || !at->second.preparing;
  });
}

// Without the lock: it reads from disk, and other files are opened meanwhile.
void OpenFiles::prepare(Shard& s, uint64_t node, Lock& lock, const std::function<int()>& first) {
  s.states[node].preparing = true;
  lock.unlock();
  int backing = 0;
  try {
    backing = first();
  } catch (...) {
    lock.lock();
    s.states.erase(node);
    s.prepared.notify_all();
    throw;
  }
  lock.lock();
  State& state = s.states[node];
  state.preparing = false;
  state.backing = backing;
  s.prepared.notify_all();
}

void OpenFiles::settle(uint64_t node) {
  Shard& s = shard(node);
  Lock lock(s.mutex);
  waitPrepared(s, node, lock);
}

bool OpenFiles::end(uint64_t node) {
  State ended;
  {
    Shard& s = shard(node);
    const std::lock_guard lock(s.mutex);
    const auto at = s.states.find(node);
    if (at == s.states.end()) return false;
    ended = at->second;
    if (--at->second.opens > 0) return ended.mappable;
    s.states.erase(at);
  }
  if (ended.backing != 0) {
    const std::lock_guard lock(unusedMutex_);
    unused_.push_back(ended.backing);
  }
  return ended.mappable;
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
