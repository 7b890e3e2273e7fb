// What `status` answers.
#include "store/control/executor.h"

namespace kilnfs {
namespace {

using nlohmann::json;

constexpr size_t kEndedShown = 50;

json described(const BuildStatus& status) {
  json out = buildObject(status);
  out["uid"] = status.uid;
  out["queued"] = status.queued;
  if (status.started != 0) out["started"] = status.started;
  if (status.ended != 0) out["ended"] = status.ended;
  if (!status.message.empty()) out["message"] = status.message;
  return out;
}

void addBuilds(const Builds& builds, json& out) {
  json shown = json::array();
  json queue = json::array();
  size_t ended = 0;
  for (const BuildStatus& status : builds.list()) {
    if (status.state == BuildState::queued) {
      queue.push_back(described(status));
    } else if (status.ended == 0 || ended++ < kEndedShown) {
      shown.push_back(described(status));
    }
  }
  out["builds"] = std::move(shown);
  out["queue"] = std::move(queue);
}

}  // namespace

Expected<json> statusObject(Store& store, const Leases& leases, const Builds& builds) {
  json out;
  addBuilds(builds, out);
  out["leases"] = json::array();
  for (const LeaseInfo& lease : leases.list()) {
    out["leases"].push_back({{"lease", lease.lease},
                             {"path", "leases/" + lease.lease},
                             {"cache", lease.cache},
                             {"generation", lease.generation},
                             {"holder", lease.holder},
                             {"uid", lease.uid},
                             {"since", lease.since},
                             {"open", lease.opens},
                             {"used", lease.used}});
  }
  auto caches = store.caches();
  if (!caches) return Failure(caches.error());
  out["caches"] = json::array();
  for (const CacheInfo& cache : *caches) {
    out["caches"].push_back(
        {{"name", cache.name.str()}, {"generation", cache.generation}, {"leases", cache.leases}});
  }
  auto pins = store.pins();
  if (!pins) return Failure(pins.error());
  out["pins"] = std::move(*pins);
  out["recording"] = {{"queued", store.pendingRecords()}};
  out["materializer"] = {{"queued", store.sealedResults().size()}};
  auto space = store.df();
  if (!space) return Failure(space.error());
  auto usage = store.usage();
  if (!usage) return Failure(usage.error());
  out["space"] = {{"total_bytes", space->totalBytes},         {"free_bytes", space->freeBytes},
                  {"total_inodes", space->totalInodes},       {"free_inodes", space->freeInodes},
                  {"free_percent", space->freePercent()},     {"results_bytes", usage->bytes},
                  {"pending_deletes", store.pendingDeletes()}};
  return out;
}

}  // namespace kilnfs
