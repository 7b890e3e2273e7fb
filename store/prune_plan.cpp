#include "store/prune_plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace kilnfs {
namespace {

std::string sized(uint64_t bytes) {
  return sizeText(static_cast<double>(bytes));
}

}  // namespace

bool enoughFree(const Space& space, const Portion& least) {
  if (const auto* bytes = std::get_if<uint64_t>(&least)) return space.freeBytes >= *bytes;
  return space.freePercent() >= std::get<double>(least);
}

std::string freeText(const Space& space, const Portion& least) {
  if (std::holds_alternative<uint64_t>(least)) return sized(space.freeBytes);
  return fmt::format("{:.1f}%", space.freePercent());
}

Pruner::Plan::Plan(const std::vector<Result>& results, const PruneLimits& limits,
                   const Space& space, int64_t now)
    : limits_(limits), space_(space), now_(now), count_(results.size()) {
  for (const Result& result : results) {
    left_.bytes += result.usage.bytes;
    states_.try_emplace(result.id, State{result, 0, {}, {}});
  }
  for (const Result& result : results) {
    if (!result.parent) continue;
    const auto parent = states_.find(*result.parent);
    if (parent == states_.end()) continue;
    ++parent->second.children;
    parent->second.child = result.id;
  }
  for (const auto& [id, state] : states_) {
    if (state.children == 0 && state.result.keep.empty()) ready(state);
  }
}

Space Pruner::Plan::spaceNow() const {
  Space now = space_;
  now.freeBytes += freed_.bytes;
  now.freeInodes += freed_.inodes;
  return now;
}

std::string Pruner::Plan::demand(const State& state) const {
  const int64_t age = std::max<int64_t>(now_ - state.result.used, 0);
  if (limits_.before && age >= limits_.before->count()) {
    return fmt::format("not used for {}", ageText(age));
  }
  std::string limit;
  if (limits_.maxCount && count_ > *limits_.maxCount) {
    limit = fmt::format("{} results are more than {}", count_, *limits_.maxCount);
  } else if (limits_.maxUsed && left_.bytes > *limits_.maxUsed) {
    limit = fmt::format("{} used are more than {}", sized(left_.bytes), sized(*limits_.maxUsed));
  } else if (limits_.minFree && !enoughFree(spaceNow(), *limits_.minFree)) {
    limit = fmt::format("{} free are less than {}", freeText(spaceNow(), *limits_.minFree),
                        portionText(*limits_.minFree));
  } else {
    return {};
  }
  return fmt::format("{}, and it was last used {} ago, before all others that may go", limit,
                     ageText(age));
}

const Pruner::Plan::Result* Pruner::Plan::next() {
  if (ready_.empty()) return nullptr;
  const State& oldest = states_.at(ready_.begin()->second);
  why_ = demand(oldest);
  return why_.empty() ? nullptr : &oldest.result;
}

void Pruner::Plan::gone(const Result& result, Pruned::Action action) {
  State& state = states_.at(result.id);
  ready_.erase({result.used, result.id});
  state.fate = Pruned{result.id, action, why_, result.usage.bytes};
  --count_;
  left_.bytes -= result.usage.bytes;
  freed_.bytes += result.usage.bytes;
  freed_.inodes += result.usage.inodes;
  if (!result.parent) return;
  const auto parent = states_.find(*result.parent);
  if (parent == states_.end() || --parent->second.children != 0) return;
  if (parent->second.result.keep.empty()) ready(parent->second);
}

void Pruner::Plan::stays(const Result& result, const std::string& why) {
  ready_.erase({result.used, result.id});
  states_.at(result.id).fate = Pruned{result.id, Pruned::Action::kept, why, result.usage.bytes};
}

std::vector<Pruned> Pruner::Plan::outcome() const {
  std::vector<Pruned> out;
  for (const auto& [id, state] : states_) {
    if (state.fate) {
      out.push_back(*state.fate);
      continue;
    }
    std::string why = state.result.keep;
    if (why.empty() && state.children == 1) {
      why = fmt::format("{} was built on it", state.child);
    } else if (why.empty() && state.children > 1) {
      why = fmt::format("{} results were built on it, as {}", state.children, state.child);
    } else if (why.empty()) {
      why = fmt::format("last used {} ago, within the limits",
                        ageText(std::max<int64_t>(now_ - state.result.used, 0)));
    }
    out.push_back({id, Pruned::Action::kept, why, state.result.usage.bytes});
  }
  return out;
}

}  // namespace kilnfs
