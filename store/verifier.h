// Comparing results with what was recorded of them when they were sealed.
#pragma once

#include <string>
#include <vector>

#include "store/base/interrupt.h"
#include "store/base/name.h"
#include "store/verify.h"

namespace kilnfs {

struct Core;
class Results;

class Verifier {
 public:
  /// What is referred to outlives it.
  Verifier(Core& core, Results& results, bool repair, Interrupt& interrupt)
      : core_(core), results_(results), repair_(repair), interrupt_(interrupt) {}

  /// See Store::verify.
  Expected<std::vector<Verified>> run(const std::vector<Id>& ids);

 private:
  Expected<std::vector<Id>> all() const;
  Expected<Verified> check(const Id& id);
  Expected<Verified> compare(const Id& id);
  Expected<Verified> record(const Id& id, const std::string& note);
  Expected<Verified> missing(const Id& id);
  Verified unreadable(const Id& id, const std::string& why) const;
  void setAside(const Id& id, Verified& found);

  Core& core_;
  Results& results_;
  const bool repair_;
  Interrupt& interrupt_;
  std::vector<Id> also_;  // built on results that were set aside
};

}  // namespace kilnfs
