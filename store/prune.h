// What pruning is asked for, and what came of it. See Store::prune.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "store/base/units.h"

namespace kilnfs {

/// Each by itself: a result goes if one of them demands it.
struct PruneLimits {
  std::optional<std::chrono::seconds> before;  // results that were not used for so long go
  std::optional<uint64_t> maxUsed;             // bytes that all results may take
  std::optional<Portion> minFree;              // of the file system (percent: and of its inodes)
  std::optional<uint64_t> maxCount;            // results that may stay
  bool any() const { return before || maxUsed || minFree || maxCount; }
};

struct PruneRequest {
  PruneLimits limits;
  bool dryRun = false;
};

struct Pruned {
  enum class Action { deleted, kept, wouldDelete };
  std::string id;
  Action action = Action::kept;
  std::string why;     // for people
  uint64_t bytes = 0;  // that the result takes by itself; 0 where nobody asked for sizes
};
std::string actionName(Pruned::Action action);

}  // namespace kilnfs
