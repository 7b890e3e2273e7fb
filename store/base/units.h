// Durations and sizes as people write and read them.
#pragma once

#include <charconv>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "store/base/error.h"

namespace kilnfs {

/// The whole of `text` as a decimal number that fits; nothing for anything else.
template <class Number>
std::optional<Number> parseNumber(std::string_view text) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// 90, 90s, 5m, 2h, 1d, 500ms. EINVAL also for zero and for what does not fit.
Expected<std::chrono::milliseconds> parseDuration(std::string_view text);

/// 4096, 512K, 300M, 10G, 1T: powers of 1024, in bytes. EINVAL for what does not fit.
Expected<uint64_t> parseSize(std::string_view text);

/// So much of a file system: bytes, or percent of it (10%; 0 to 100).
using Portion = std::variant<uint64_t, double>;
Expected<Portion> parsePortion(std::string_view text);

/// Space on disk.
struct Usage {
  uint64_t bytes = 0;
  uint64_t inodes = 0;
};

/// "512 B", "1.5 GiB".
std::string sizeText(double bytes);
/// A time span to the second, by its largest unit: "12 s", "3 min", "5 h", "2 d".
std::string ageText(int64_t seconds);
std::string portionText(const Portion& portion);

/// A word of somebody's for a message: in quotes, not longer than a message bears.
std::string shown(std::string_view text);

}  // namespace kilnfs
