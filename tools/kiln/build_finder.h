// Learns the id of a build that another thread of kiln has asked for and waits for: the write to
// `control` has no answer before the end, but `events` says who asked for which build.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "store/base/fd.h"

namespace kilnfs {

/// The id in the first of the event lines that tells of a build asked for by thread `requester`;
/// empty if there is none.
std::string buildRequestedBy(pid_t requester, std::string_view lines);

class BuildFinder {
 public:
  /// Make it before the request: events from then on are looked at. Never blocks.
  explicit BuildFinder(const std::string& mount);
  /// The id, once it is known; else empty.
  std::string find(pid_t requester);

 private:
  std::string readNew();

  UniqueFd events_;
  std::string rest_;  // the part of a line that has come so far
};

}  // namespace kilnfs
