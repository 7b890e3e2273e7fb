#include "store/build/builds.h"

#include "store/build/scheduler.h"

namespace kilnfs {

std::string stateName(BuildState state) {
  switch (state) {
    case BuildState::queued:
      return "queued";
    case BuildState::running:
      return "running";
    case BuildState::saved:
      return "saved";
    case BuildState::failed:
      return "failed";
    case BuildState::cancelled:
      return "cancelled";
    case BuildState::timedOut:
      return "timed-out";
  }
  return "unknown";
}

std::unique_ptr<Builds> Builds::create(Store& store, Leases& leases, Options options) {
  return std::make_unique<Scheduler>(store, leases, std::move(options));
}

}  // namespace kilnfs
