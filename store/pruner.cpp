#include "store/pruner.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <ctime>

#include "store/base/fault.h"
#include "store/core.h"
#include "store/prune_plan.h"
#include "store/results.h"

namespace kilnfs {

std::string actionName(Pruned::Action action) {
  switch (action) {
    case Pruned::Action::deleted:
      return "deleted";
    case Pruned::Action::wouldDelete:
      return "would-delete";
    case Pruned::Action::kept:
      break;
  }
  return "kept";
}

/// Results whose size nobody has measured yet. What is not plain on disk yet counts as nothing.
Status Pruner::measureAll(Interrupt& interrupt) {
  auto rows = core_.database->builds();
  if (!rows) return Failure(rows.error());
  for (const BuildRow& row : *rows) {
    const auto id = Id::parse(row.id);
    if (row.usage || !id) continue;
    if (interrupt.raised()) return fail(EINTR, "interrupted");
    auto usage = core_.manifests.measure(*id, interrupt);
    if (!usage && usage.error().code == EINTR) return Failure(usage.error());
    if (!usage && usage.error().code != ENOENT) {
      spdlog::warn("the size of {} is not known: {}", row.id, usage.error().message);
    }
  }
  return {};
}

Expected<Pruner::Plan> Pruner::plan(const PruneRequest& request) const {
  results_.flushTouched();
  auto rows = core_.database->builds();
  if (!rows) return Failure(rows.error());
  auto space = core_.df();
  if (!space) return Failure(space.error());
  std::vector<Plan::Result> results;
  for (BuildRow& row : *rows) {
    const auto id = Id::parse(row.id);
    if (!id || !results_.has(*id)) continue;
    std::string keep = row.pinned ? "it is pinned" : results_.useOf(*id);
    if (keep.empty()) keep = results_.holds().why(*id);
    results.push_back({std::move(row.id), std::move(row.parent), row.used,
                       row.usage.value_or(Usage{}), std::move(keep)});
  }
  return Plan(results, request.limits, *space, ::time(nullptr));
}

Expected<std::vector<Pruned>> Pruner::prune(const PruneRequest& asked, Interrupt& interrupt) {
  PruneRequest request = asked;
  if (!request.limits.any()) request.limits = own_;
  if (!request.limits.any()) {
    return fail(EINVAL,
                "prune: no limit: give --before, --max-used, --min-free or --max, or "
                "mount with the options max_used or min_free");
  }
  if (request.limits.maxUsed || request.limits.minFree) {
    if (auto ok = measureAll(interrupt); !ok) return Failure(ok.error());
  }
  // What is being freed already is not to be freed twice.
  if (request.limits.minFree) core_.trash.wait();
  const std::lock_guard lock(mutex_);
  auto plan = this->plan(request);
  if (!plan) return Failure(plan.error());
  while (const auto* result = plan->next()) {
    if (interrupt.raised()) return fail(EINTR, "interrupted");
    if (request.dryRun) {
      plan->gone(*result, Pruned::Action::wouldDelete);
      continue;
    }
    faultPoint("prune.chosen");
    const auto done = results_.removeUnused(*Id::parse(result->id));
    if (done) {
      spdlog::info("pruned {}: {}", result->id, plan->why());
      plan->gone(*result, Pruned::Action::deleted);
    } else {
      plan->stays(*result, done.error().message);
    }
  }
  return plan->outcome();
}

/// At least what results use, and that exactly if it is more than may be.
Expected<uint64_t> Pruner::used() const {
  auto total = core_.database->totalUsage();
  if (!total) return Failure(total.error());
  if (total->bytes <= *own_.maxUsed) return total->bytes;
  // As the plan counts: a row that could not be deleted with its result takes no space, and nothing
  // that could be pruned.
  results_.forgetDeleted();
  auto rows = core_.database->builds();
  if (!rows) return Failure(rows.error());
  uint64_t bytes = 0;
  for (const BuildRow& row : *rows) {
    const auto id = Id::parse(row.id);
    if (id && row.usage && results_.has(*id)) bytes += row.usage->bytes;
  }
  return bytes;
}

Expected<std::string> Pruner::exceeded() const {
  if (own_.minFree) {
    auto space = core_.df();
    if (!space) return Failure(space.error());
    if (!enoughFree(*space, *own_.minFree)) {
      return fmt::format("{} of the file system are free, less than min_free={}",
                         freeText(*space, *own_.minFree), portionText(*own_.minFree));
    }
  }
  if (own_.maxUsed) {
    auto used = this->used();
    if (!used) return Failure(used.error());
    if (*used > *own_.maxUsed) {
      return fmt::format("results use {}, more than max_used={}",
                         sizeText(static_cast<double>(*used)),
                         sizeText(static_cast<double>(*own_.maxUsed)));
    }
  }
  return std::string();
}

Status Pruner::makeRoom(Interrupt& interrupt) {
  if (!own_.any()) return {};
  if (own_.maxUsed) {
    if (auto ok = measureAll(interrupt); !ok) return ok;
  }
  auto wrong = exceeded();
  if (wrong && !wrong->empty()) {
    auto pruned = prune({own_, false}, interrupt);
    if (!pruned) return Failure(pruned.error());
    if (own_.minFree) core_.trash.wait();
    wrong = exceeded();
  }
  if (!wrong) return Failure(wrong.error());
  if (wrong->empty()) return {};
  return fail(ENOSPC, fmt::format("no space: {}, and no result is left that may be pruned; "
                                  "prune --dry-run says why",
                                  *wrong));
}

}  // namespace kilnfs
