// A workload: its figures, and who takes part. The runner does the rounds.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tools/bench/figures.h"
#include "tools/bench/site.h"

namespace kilnfs::bench {

struct Contender {
  std::string name;
  std::function<Expected<Samples>()> measure;
};

struct Workload {
  std::string name;
  std::string title;
  std::vector<Figure> figures;
  /// Makes what is needed and says who takes part. What it returns may refer to the site.
  std::function<Expected<std::vector<Contender>>(Site&)> prepare;
  unsigned mostRounds = 0;  // of figures that are no times and vary little; 0: as many as wanted
};

/// All workloads, in the order of a run.
const std::vector<Workload>& workloads();

Workload walkWorkload();
Workload ioWorkload();
Workload smallWorkload();
Workload workWorkload();
Workload leaseWorkload();
Workload buildWorkload();
Workload deleteWorkload();
Workload buildsWorkload();
Workload memoryWorkload();
Workload chainWorkload();

}  // namespace kilnfs::bench
