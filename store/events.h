// What happened to builds, leases, caches and results, as JSON objects, one a line, in order.
// The last ones are kept, so that a reader who comes late, or is slow, starts with what is there.
// Thread-safe; posting never blocks on a reader.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kilnfs {

class Events {
 public:
  static constexpr size_t kKept = 10000;

  /// Adds "seq" (from 1) and "time" (RFC 3339, UTC) to `event`, which has "event" and what it is
  /// about, as in {"event":"build","id":"x","state":"saved"}.
  void post(nlohmann::json event);

  /// The lines (each ending in a newline) from number `from` on, at most `maxBytes` but at least
  /// one line if there is one; sets `from` to the number after the last. When lines were dropped
  /// in between, the first line says so: {"event":"lost","count":N}.
  std::string read(uint64_t& from, size_t maxBytes) const;
  bool hasMore(uint64_t from) const;

  using Subscriber = std::function<void(const nlohmann::json& event)>;

  /// Calls `fn` after each post, on the poster's thread: it must be quick and must not post.
  /// Returns a number for unsubscribe(), after which `fn` is not called any more.
  int subscribe(Subscriber fn);
  void unsubscribe(int number);

 private:
  mutable std::mutex mutex_;
  std::deque<std::string> lines_;          // guarded by mutex_
  uint64_t next_ = 1;                      // guarded by mutex_: number of the next line
  std::mutex subscribersMutex_;            // taken after mutex_ was released
  std::map<int, Subscriber> subscribers_;  // guarded by subscribersMutex_
  int nextSubscriber_ = 1;                 // guarded by subscribersMutex_
};

}  // namespace kilnfs
