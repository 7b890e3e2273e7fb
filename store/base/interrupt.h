// A wait that somebody else can end: a signal to the process that waits in a write, or a stop of
// the daemon. Thread-safe. Waiters use `wait`, so that raising wakes them at once.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <vector>

namespace kilnfs {

class Interrupt {
 public:
  Interrupt() = default;
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  /// Raised once and for all; calls the wakers (on this thread).
  void raise() {
    std::vector<std::function<void()>> wakers;
    {
      const std::lock_guard lock(mutex_);
      raised_ = true;
      wakers.swap(wakers_);
    }
    for (auto& w : wakers) w();
  }
  bool raised() const {
    const std::lock_guard lock(mutex_);
    return raised_;
  }
  /// Calls `waker` when raised, at once if it already is. The waker must not call back.
  void onRaise(std::function<void()> waker) {
    {
      const std::lock_guard lock(mutex_);
      if (!raised_) {
        wakers_.push_back(std::move(waker));
        return;
      }
    }
    waker();
  }

 private:
  mutable std::mutex mutex_;
  bool raised_ = false;                        // guarded by mutex_
  std::vector<std::function<void()>> wakers_;  // guarded by mutex_
};

}  // namespace kilnfs
