// The daemon's command line and its -o options, as mount(8) and fstab pass them too.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "store/base/error.h"
#include "store/store.h"

namespace kilnfs {

struct DaemonOptions {
  std::string store;
  std::string mount;
  bool foreground = false;
  bool debug = false;
  std::optional<Mode> mode;
  unsigned jobs = 0;
  mode_t controlMode = 0600;
  std::optional<gid_t> controlGid;
  std::chrono::milliseconds linger{2000};
  PruneLimits limits;               // only those on space
  bool overlay = true;              // builds at native speed, where that can be had
  std::optional<bool> allowOther;   // absent: if root mounts
  std::optional<unsigned> workers;  // for the tests, and not in the help: MountOptions::workers
  std::string fault;  // for the tests, and not in the help: NAME[:PASSES], see store/base/fault.h
  std::vector<std::string> forFuse;  // ro, noatime, ...: what the kernel's mount understands
};

/// Adds what a comma-separated list says. EINVAL: an option that is unknown, or whose value is
/// wrong.
Status parseMountOptions(const std::string& list, DaemonOptions& options);

/// Of main()'s arguments. The integer is an exit status: --help and --version, or wrong usage, were
/// dealt with.
tl::expected<DaemonOptions, int> parseCommandLine(int argc, char** argv);

}  // namespace kilnfs
