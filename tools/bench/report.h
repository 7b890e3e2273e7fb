// What a run found out, for people and for programs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/bench/figures.h"
#include "tools/bench/options.h"

namespace kilnfs::bench {

/// The table of one workload on standard output.
void printTable(const std::string& name, const std::string& title, const Rounds& rounds);

/// The same, with every sample.
nlohmann::json toJson(const std::string& name, const Rounds& rounds);

/// The whole run: what it ran on, what was left out and why.
nlohmann::json reportOf(const Options& options, const std::vector<std::string>& said,
                        std::vector<nlohmann::json> workloads, bool complete);

/// Whether a bound that could be judged is exceeded.
bool anyOver(const Rounds& rounds);

}  // namespace kilnfs::bench
