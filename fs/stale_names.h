// Takes back what the kernel was told to believe of names: they are gone, or must be asked for
// again.
//
// The kernel takes the directory's lock for that, which whoever waits for an answer of ours in the
// same directory may hold: so it is done on a worker, and only those wait for it who hold no such
// lock. Thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

struct fuse_session;

namespace kilnfs {

class StaleNames {
 public:
  using Later = std::function<void(std::function<void()>)>;
  explicit StaleNames(Later later) : later_(std::move(later)) {}

  /// Set once, before requests come.
  void setSession(fuse_session* session) { session_ = session; }
  /// Whether the kernel, asked to forget a name, leaves those alone who stand in the directory.
  /// Else (before 6.2) they lose the way to where they are, as if it were removed.
  void setCanExpire(bool can) { canExpire_ = can; }
  bool canExpire() const { return canExpire_; }

  /// `name` in the directory with the node number `parent`. What is `gone` the kernel forgets as a
  /// whole, and we are told so; else it asks for the name again. Never blocks.
  void drop(uint64_t parent, std::string name, bool gone);
  /// Blocks until the kernel has forgotten all that were dropped so far, and those that are
  /// meanwhile. Not to be called while an answer is owed to who may hold a lock of their
  /// directory, or hold up who does.
  void settle();
  /// Nothing is dropped from now on: the mount ends.
  void end() { ended_ = true; }

 private:
  void tell(uint64_t parent, const std::string& name, bool gone) const;

  const Later later_;
  fuse_session* session_ = nullptr;
  bool canExpire_ = false;
  std::atomic<bool> ended_{false};
  std::mutex mutex_;
  std::condition_variable done_;
  size_t underway_ = 0;  // guarded by mutex_
};

}  // namespace kilnfs
