// Learns the id of a build that another thread of kiln has asked for and waits for: the write to
// `control` has no answer before the end, but `events` says who asked for which build. To a daemon
// in another PID namespace nobody has a number; there only a build that was given its id is found.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "store/base/fd.h"

namespace kilnfs {

/// The id in the first of the event lines that tells of a build asked for by thread `requester`,
/// or, by whomever, of the build `named` (empty: none); empty if there is none.
std::string buildRequestedBy(pid_t requester, std::string_view named, std::string_view lines);

class BuildFinder {
 public:
  /// Make it before the request: events from then on are looked at. Never blocks.
  BuildFinder(const std::string& mount, std::string named);
  /// The id, once it is known; else empty.
  std::string find(pid_t requester);

 private:
  std::string readNew();

  const std::string named_;
  UniqueFd events_;
  std::string rest_;  // the part of a line that has come so far
};

}  // namespace kilnfs
