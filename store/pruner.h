// Deleting results that nobody has used for long, so that others find space.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "store/base/interrupt.h"
#include "store/prune.h"

namespace kilnfs {

struct Core;
class Results;

/// Chooses and deletes. Thread-safe.
class Pruner {
 public:
  class Plan;

  /// What is referred to outlives it. `own`: limits that hold always.
  Pruner(Core& core, Results& results, PruneLimits own)
      : core_(core), results_(results), own_(std::move(own)) {}

  /// See Store::prune.
  Expected<std::vector<Pruned>> prune(const PruneRequest& request, Interrupt& interrupt);
  /// See Store::makeRoom.
  Status makeRoom(Interrupt& interrupt);
  const PruneLimits& limits() const { return own_; }

 private:
  Status measureAll(Interrupt& interrupt);
  Expected<Plan> plan(const PruneRequest& request) const;
  Expected<uint64_t> used() const;
  /// What is wrong with the limits that hold always; empty: nothing.
  Expected<std::string> exceeded() const;

  Core& core_;
  Results& results_;
  const PruneLimits own_;
  std::mutex mutex_;  // held while results are chosen and renamed away, so that no two do
};

}  // namespace kilnfs
