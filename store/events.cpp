#include "store/events.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <vector>

namespace kilnfs {

void Events::post(nlohmann::json event) {
  const auto now = std::chrono::system_clock::now();
  const auto millis =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  event["time"] = fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                              fmt::gmtime(std::chrono::system_clock::to_time_t(now)), millis);
  {
    const std::lock_guard lock(mutex_);
    event["seq"] = next_++;
    lines_.push_back(event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    if (lines_.size() > kKept) lines_.pop_front();
  }
  const std::lock_guard lock(subscribersMutex_);
  for (const auto& [number, fn] : subscribers_) fn(event);
}

std::string Events::read(uint64_t& from, size_t maxBytes) const {
  const std::lock_guard lock(mutex_);
  const uint64_t oldest = next_ - lines_.size();
  std::string out;
  if (from < oldest) {
    if (from != 0) out = fmt::format("{{\"event\":\"lost\",\"count\":{}}}\n", oldest - from);
    from = oldest;
  }
  while (from < next_) {
    const std::string& line = lines_[from - oldest];
    if (!out.empty() && out.size() + line.size() > maxBytes) break;
    out += line;
    ++from;
  }
  return out;
}

bool Events::hasMore(uint64_t from) const {
  const std::lock_guard lock(mutex_);
  return from < next_;
}

int Events::subscribe(Subscriber fn) {
  const std::lock_guard lock(subscribersMutex_);
  subscribers_.emplace(nextSubscriber_, std::move(fn));
  return nextSubscriber_++;
}

void Events::unsubscribe(int number) {
  const std::lock_guard lock(subscribersMutex_);
  subscribers_.erase(number);
}

}  // namespace kilnfs
