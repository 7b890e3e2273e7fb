#include "store/control/metrics.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

namespace kilnfs {

Metrics::Metrics(Store& store, const Leases& leases, const Builds& builds)
    : store_(store),
      leases_(leases),
      builds_(builds),
      subscription_(
          store.events().subscribe([this](const nlohmann::json& event) { count(event); })) {}

Metrics::~Metrics() {
  store_.events().unsubscribe(subscription_);
}

void Metrics::count(const nlohmann::json& event) {
  if (event.at("event") != "lease") return;
  const auto& state = event.at("state");
  if (state == "published") ++published_;
  if (state == "discarded" || state == "failed") ++discarded_;
  if (state == "unchanged") ++unchanged_;
}

namespace {

class Page {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    fmt::format_to(std::back_inserter(text_), "# HELP kilnfs_{} {}\n# TYPE kilnfs_{} {}\n", name,
                   help, name, type);
  }
  template <class Value>
  void sample(std::string_view name, Value value) {
    fmt::format_to(std::back_inserter(text_), "kilnfs_{} {}\n", name, value);
  }
  template <class Value>
  void one(std::string_view name, std::string_view type, std::string_view help, Value value) {
    family(name, type, help);
    sample(name, value);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

}  // namespace

std::string Metrics::text() const {
  Page page;
  const BuildTotals totals = builds_.totals();
  page.family("builds_total", "counter", "Builds that ended, by how.");
  page.sample("builds_total{state=\"saved\"}", totals.saved);
  page.sample("builds_total{state=\"failed\"}", totals.failed);
  page.sample("builds_total{state=\"cancelled\"}", totals.cancelled);
  page.sample("builds_total{state=\"timed-out\"}", totals.timedOut);
  page.one("builds_cached_total", "counter", "Requests answered from the store.", totals.cached);
  page.one("builds_joined_total", "counter", "Requests that joined a build under way.",
           totals.joined);
  page.one("build_seconds_total", "counter", "Time that builds ran.", totals.seconds);
  size_t queued = 0;
  size_t running = 0;
  for (const BuildStatus& status : builds_.list()) {
    queued += status.state == BuildState::queued ? 1 : 0;
    running += status.state == BuildState::running ? 1 : 0;
  }
  page.one("builds_queued", "gauge", "Builds that wait for their turn or their base.", queued);
  page.one("builds_running", "gauge", "Builds that run.", running);
  page.one("leases_active", "gauge", "Leases held.", leases_.list().size());
  page.family("leases_released_total", "counter", "Leases that ended, by outcome.");
  page.sample("leases_released_total{outcome=\"published\"}", published_.load());
  page.sample("leases_released_total{outcome=\"discarded\"}", discarded_.load());
  page.sample("leases_released_total{outcome=\"unchanged\"}", unchanged_.load());
  page.one("commands_total", "counter", "Commands written to control.", commands_.load());
  page.one("commands_failed_total", "counter", "Of these, refused or failed.",
           commandsFailed_.load());
  page.one("pending_deletes", "gauge", "Trees renamed away and not yet freed.",
           store_.pendingDeletes());
  page.one("materializer_queue", "gauge", "Results that are saved, and not plain yet.",
           store_.sealedResults().size());
  if (const auto space = store_.df()) {
    page.one("free_bytes", "gauge", "Bytes that the store may still use.", space->freeBytes);
    page.one("free_inodes", "gauge", "Inodes that the store may still use.", space->freeInodes);
  }
  const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - started_;
  page.one("uptime_seconds", "gauge", "Since the daemon started.", uptime.count());
  return page.take();
}

}  // namespace kilnfs
