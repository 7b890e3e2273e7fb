// Does the rounds of a workload.
#pragma once

#include "tools/bench/workload.h"

namespace kilnfs::bench {

/// Every round measures every contender once; the order turns by one place from round to round, so
/// that each has each neighbour. A contender that fails is left out from then on, and said to be.
/// EINTR: the run was interrupted. Other errors: the workload can't be measured.
Expected<Rounds> measure(Site& site, const Workload& workload);

}  // namespace kilnfs::bench
