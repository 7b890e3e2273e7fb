// Whether it is worth it to wait awake for the next request.
#pragma once

#include <bit>
#include <chrono>
#include <cstdint>

namespace kilnfs {

class Patience {
 public:
  using Clock = std::chrono::steady_clock;

  /// For how long to wait awake: about twice as long as it takes to be woken.
  static constexpr std::chrono::microseconds kAwake{50};
  /// How much later than it came a request is seen by who has to be woken.
  static constexpr std::chrono::microseconds kWoken{50};
  /// A processor given up for longer than this was used by somebody else.
  static constexpr std::chrono::microseconds kTaken{30};
  /// For how long to leave processors to others then.
  static constexpr std::chrono::milliseconds kCourtesy{5};

  enum class Wait { none, awake, asleep, both };

  /// A request was seen, so long after the one before was done, and waited for in that way.
  void came(Clock::duration after, Wait wait) {
    const bool soon = wait == Wait::none || wait == Wait::awake ||
                      (wait == Wait::asleep && after < kAwake + kWoken);
    recent_ = static_cast<uint8_t>(recent_ << 1 | (soon ? 1 : 0));
  }
  /// Somebody else wants the processor.
  void crowded(Clock::time_point now) { courteousUntil_ = now + kCourtesy; }

  bool worthIt(Clock::time_point now) const {
    return std::popcount(static_cast<uint8_t>(recent_ & 0xf)) >= 3 && now >= courteousUntil_;
  }

 private:
  uint8_t recent_ = 0;  // a bit for each of the last requests, the last one lowest: came soon
  Clock::time_point courteousUntil_{};
};

}  // namespace kilnfs
