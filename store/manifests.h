// The manifests of a store's results, state/manifest/<id>, and who writes them: a thread in the
// background, of low priority, once a result was saved. What it has not come to when the store is
// closed is left to the next start. With a manifest goes the space that the result takes, recorded
// in the database. Thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "store/base/name.h"
#include "store/database.h"
#include "store/layout.h"
#include "store/manifest.h"

namespace kilnfs {

class Manifests {
 public:
  /// Both outlive it.
  Manifests(const Layout& layout, Database& database);
  /// Interrupts the thread.
  ~Manifests();

  /// Removes manifests of results that are gone, and queues results of ours that have none. Once,
  /// at start.
  Status resume();
  /// Queues `id`, which was saved just now. Never blocks.
  void recordLater(const Id& id);
  /// Results that wait for being recorded.
  size_t pending() const;
  /// Blocks until what was queued so far is done. EINTR.
  Status drain(Interrupt& interrupt);

  /// Reads the whole result and records it, in place of what was recorded. ENOENT: no such result,
  /// or deleted meanwhile. Blocks; EINTR.
  Status record(const Id& id, Interrupt& interrupt);
  /// What deleting the result frees: files that it shares with its base don't count, since a base
  /// is never deleted before what was built on it. Recorded in the database. Blocks for a walk.
  Expected<Usage> measure(const Id& id, Interrupt& interrupt);
  /// To be called after a result has been renamed away.
  void forget(const Id& id);

  std::string path(const Id& id) const;

 private:
  Expected<UniqueFd> openResult(const Id& id) const;
  Expected<Usage> walk(const Id& id, UniqueFd root, Describer& describer, ManifestWriter* writer,
                       Interrupt& interrupt);
  Usage usageOf(const Describer& describer, const std::optional<std::string>& parent) const;
  /// Moves the manifest that was written as `tmp` into place, if `root` is still the result.
  Status commit(const Id& id, const std::string& tmp, const struct stat& root);
  void threadMain();

  const Layout& layout_;
  Database& database_;
  Interrupt stop_;
  std::mutex commitMutex_;  // held while a manifest is put in place or removed
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::deque<Id> queue_;  // guarded by mutex_, as what follows
  bool busy_ = false;
  bool stopping_ = false;
  unsigned next_ = 1;
  std::thread thread_;  // last: it uses the others
};

}  // namespace kilnfs
