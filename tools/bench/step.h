// The part of a workload that runs in the file system that is measured, as a process of its own:
// `kiln-bench step NAME --in DIR ...`. So the same code can be the command of a build.
#pragma once

#include <string>
#include <vector>

#include "store/base/error.h"
#include "tools/bench/figures.h"

namespace kilnfs::bench {

/// A build's command ends so on purpose: what it measured is in its log, and nothing is stored.
constexpr int kMeasured = 77;

struct StepOptions {
  std::string in;       // where to go first; empty: stay
  std::string archive;  // of `work`
  size_t files = 0;     // of `small`
  size_t bytes = 0;     // of `write`
  size_t operations = 0;
};

/// Writes a line for each value and each check to standard output.
Status stepWalk(const StepOptions& options);
Status stepRead(const StepOptions& options);
Status stepWrite(const StepOptions& options);
Status stepSmall(const StepOptions& options);
Status stepWork(const StepOptions& options);

void tellValue(const std::string& figure, double value);
void tellCheck(const std::string& name, const std::string& text);

/// What the lines in a step's output say.
Samples readSamples(const std::string& output);

/// `kiln-bench step ...`: the exit status.
int stepMain(int argc, char** argv);

}  // namespace kilnfs::bench
