// Which results go, and in which order: the least recently used first, never one that others were
// built on, so that a base comes after them. Pure: looks at nothing but what it is given.
#pragma once

#include <set>
#include <unordered_map>

#include "store/pruner.h"
#include "store/store.h"

namespace kilnfs {

/// Whether as much is free; and how much is, in the unit of `least`.
bool enoughFree(const Space& space, const Portion& least);
std::string freeText(const Space& space, const Portion& least);

class Pruner::Plan {
 public:
  struct Result {
    std::string id;
    std::optional<std::string> parent;
    int64_t used = 0;  // seconds since the epoch
    Usage usage;
    std::string keep;  // why it must stay; empty: it may go
  };

  /// `space`: of the file system, before anything is deleted.
  Plan(const std::vector<Result>& results, const PruneLimits& limits, const Space& space,
       int64_t now);

  /// The next that should go; null: the limits are kept, or nothing more may go.
  const Result* next();
  /// Why the last one should.
  const std::string& why() const { return why_; }
  /// It went (or would), or it turned out that it can't.
  void gone(const Result& result, Pruned::Action action);
  void stays(const Result& result, const std::string& why);

  /// One object for each result, by id.
  std::vector<Pruned> outcome() const;

 private:
  struct State {
    Result result;
    int children = 0;
    std::string child;  // one of them
    std::optional<Pruned> fate;
  };
  /// Why the state should go; empty: it need not.
  std::string demand(const State& state) const;
  Space spaceNow() const;
  void ready(const State& state) { ready_.emplace(state.result.used, state.result.id); }

  const PruneLimits limits_;
  const Space space_;
  const int64_t now_;
  std::map<std::string, State> states_;
  std::set<std::pair<int64_t, std::string>> ready_;  // by use: those that may go now
  Usage left_;                                       // of all that stay
  Usage freed_;
  uint64_t count_ = 0;  // that stay
  std::string why_;
};

}  // namespace kilnfs
