// Leases, builds and deleting: what a copy of a tree costs.
#include <fmt/format.h>

#include "tools/bench/cloners.h"
#include "tools/bench/workload.h"

namespace kilnfs::bench {
namespace {

using Measured = Expected<Samples>;
using Values = std::vector<std::pair<std::string, std::function<Expected<double>()>>>;

Measured measureAll(const Values& wanted) {
  Samples samples;
  for (const auto& [figure, measure] : wanted) {
    const auto value = measure();
    if (!value) return Failure(value.error());
    samples.values[figure] = *value;
  }
  return samples;
}

/// A figure of a large tree against the same with a small one.
Figure figure(const std::string& id, const std::string& title, const std::string& reference) {
  const std::vector<std::string> peers = {"overlay", "btrfs"};
  return {id,
          title,
          Unit::kSeconds,
          Against::kOwn,
          reference,
          {{"kiln-copy", 1.5, peers}, {"kiln-link", 1.5, peers}}};
}

Measured measureLease(Site& site, Cloner& cloner) {
  const auto cycle = [&](const char* cache) {
    return [&site, &cloner, cache] { return cloner.cycle(cache, site.fresh("text ")); };
  };
  return measureAll({{"lease.cycle-300", cycle("small")}, {"lease.cycle", cycle("big")}});
}

Measured measureJobs(Site& site, KilnCloner& cloner) {
  const auto cycle = [&](const char* cache) {
    return [&site, &cloner, cache] { return cloner.cycleOfJobs(cache, site.fresh("job ")); };
  };
  return measureAll({{"lease.jobs-300", cycle("small")}, {"lease.jobs", cycle("big")}});
}

Measured measureBuild(Site& site, Cloner& cloner) {
  const auto build = [&](const char* base) {
    return [&site, &cloner, base]() -> Expected<double> {
      const std::string id = site.fresh("built");
      auto seconds = cloner.build(base, id);
      if (!seconds) return seconds;
      if (auto gone = cloner.erase(id); !gone) return gone;
      return seconds;
    };
  };
  return measureAll({{"build.clone-empty", build("empty")}, {"build.clone", build("base")}});
}

Measured measureDelete(Site& site, Cloner& cloner) {
  const std::string id = site.fresh("deleted");
  if (auto built = cloner.build("base", id); !built) return Failure(built.error());
  return measureAll({{"delete.result", [&] { return cloner.erase(id); }}});
}

using Measure = std::function<Measured(Site&, Cloner&)>;

Expected<std::vector<Contender>> everybody(Site& site, const Measure& measure) {
  const auto own = makeKilnCloners(site);
  if (!own) return Failure(own.error());
  const auto peers = site.peers([&site] { return makePeerCloners(site); });
  if (!peers) return Failure(peers.error());
  Cloners all(own->begin(), own->end());
  all.insert(all.end(), peers->begin(), peers->end());
  std::vector<Contender> contenders;
  for (const auto& cloner : all) {
    contenders.push_back(
        {cloner->name(), [&site, measure, cloner] { return measure(site, *cloner); }});
  }
  return contenders;
}

Measured measureBothLeases(Site& site, Cloner& cloner) {
  auto samples = measureLease(site, cloner);
  auto* kiln = dynamic_cast<KilnCloner*>(&cloner);
  if (!samples || kiln == nullptr) return samples;
  const auto more = measureJobs(site, *kiln);
  if (!more) return more;
  samples->values.insert(more->values.begin(), more->values.end());
  return samples;
}

}  // namespace

Workload leaseWorkload() {
  Figure jobs = figure("lease.jobs", "the same by two shells", "lease.jobs-300");
  for (auto& bound : jobs.bounds) bound.notAbove.clear();  // shells are no part of what peers do
  return {
      "lease",
      "open a cache's lease, change a file, publish, next sees it; against a cache of 300 files",
      {figure("lease.cycle", "open, change, publish, see", "lease.cycle-300"), jobs},
      [](Site& site) { return everybody(site, measureBothLeases); }};
}

Workload buildWorkload() {
  return {"build",
          "a build on a base, less its command; against an empty base",
          {figure("build.clone", "clone and commit", "build.clone-empty")},
          [](Site& site) { return everybody(site, measureBuild); }};
}

Workload deleteWorkload() {
  Figure erase = {"delete.result",
                  "delete, until the answer",
                  Unit::kSeconds,
                  Against::kNothing,
                  "",
                  {{"kiln-copy", 0.005, {}}, {"kiln-link", 0.005, {}}}};
  return {"delete", "deleting a result as large as the base", {erase}, [](Site& site) {
            return everybody(site, measureDelete);
          }};
}

}  // namespace kilnfs::bench
