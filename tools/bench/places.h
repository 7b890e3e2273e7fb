// The file systems in which a step can run.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tools/bench/site.h"

namespace kilnfs::bench {

/// What a step does to the tree that it runs in.
enum class Use { kReads, kWrites };

class Place {
 public:
  virtual ~Place() = default;
  virtual const char* name() const = 0;
  /// Runs `kiln-bench step ARGS` in a workspace over the base that is opened, or mounted, for it,
  /// so that the file system knows nothing of the tree yet. Its output.
  virtual Expected<std::string> run(const Argv& args) = 0;
};

/// All places there are on this machine, native first. For those that can't be, says why.
/// Only a step that reads can run in a result.
Expected<std::vector<std::shared_ptr<Place>>> makePlaces(Site& site, Use use);

}  // namespace kilnfs::bench
