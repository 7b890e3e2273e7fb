// Results that must not be pruned for a reason that the store does not know: a build that is still
// queued will need one.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "store/base/error.h"
#include "store/base/name.h"

namespace kilnfs {

/// Lasts as long as somebody has it. Must not outlive the store.
using Hold = std::shared_ptr<const void>;

/// Thread-safe. A lock of its own, held for no more than a look: who queues a build must not wait
/// for a deletion.
class Holds {
 public:
  /// `why` is for people. Null: the result is being deleted right now.
  Hold hold(const Id& id, std::string why);
  /// Empty: nobody holds it.
  std::string why(const Id& id) const;
  /// Does `remove` if nobody holds the result, and nobody can until it is done. EBUSY.
  Status unlessHeld(const Id& id, const std::function<Status()>& remove);

 private:
  using Held = std::multimap<Id, std::string>;

  mutable std::mutex mutex_;
  Held held_;           // guarded by mutex_, as what follows
  std::set<Id> going_;  // are being removed
};

}  // namespace kilnfs
