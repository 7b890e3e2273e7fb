// The counters behind `metrics`.
#pragma once

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>

#include "store/build/builds.h"

namespace kilnfs {

class Metrics {
 public:
  Metrics(Store& store, const Leases& leases, const Builds& builds);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void commandRan(bool failed) {
    ++commands_;
    if (failed) ++commandsFailed_;
  }
  /// Prometheus text format.
  std::string text() const;

 private:
  void count(const nlohmann::json& event);

  Store& store_;
  const Leases& leases_;
  const Builds& builds_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::atomic<uint64_t> commands_{0};
  std::atomic<uint64_t> commandsFailed_{0};
  std::atomic<uint64_t> published_{0};
  std::atomic<uint64_t> discarded_{0};
  std::atomic<uint64_t> unchanged_{0};
  int subscription_;
};

}  // namespace kilnfs
