#include "store/base/units.h"

#include <fmt/format.h>

#include <cctype>
#include <iterator>
#include <limits>

namespace kilnfs {

std::string shown(std::string_view text) {
  return inQuotes(text.substr(0, 60)) + (text.size() > 60 ? "..." : "");
}

Expected<std::chrono::milliseconds> parseDuration(std::string_view text) {
  struct Unit {
    std::string_view suffix;
    int64_t millis;
  };
  constexpr Unit kUnits[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
  constexpr int64_t kMostMs = int64_t{36500} * 86400000;
  std::string_view digits = text;
  int64_t unit = 1000;
  for (const Unit& u : kUnits) {
    if (!text.ends_with(u.suffix)) continue;
    digits = text.substr(0, text.size() - u.suffix.size());
    unit = u.millis;
    break;
  }
  const auto number = parseNumber<int64_t>(digits);
  if (!number || *number <= 0 || *number > kMostMs / unit) {
    return fail(EINVAL, fmt::format("{} is not a duration: use a number above 0 with ms, s, m, h "
                                    "or d, as in 90, 500ms or 2h",
                                    shown(text)));
  }
  return std::chrono::milliseconds(*number * unit);
}

Expected<uint64_t> parseSize(std::string_view text) {
  constexpr std::string_view kUnits = "KMGTP";
  std::string_view digits = text;
  uint64_t unit = 1;
  if (!text.empty()) {
    const size_t place = kUnits.find(static_cast<char>(std::toupper(text.back())));
    if (place != std::string_view::npos) {
      unit = uint64_t{1} << (10 * (place + 1));
      digits = text.substr(0, text.size() - 1);
    }
  }
  const auto number = parseNumber<uint64_t>(digits);
  if (!number || *number > std::numeric_limits<uint64_t>::max() / unit) {
    return fail(EINVAL, fmt::format("{} is not a size: use bytes, or a number with K, M, G, T or "
                                    "P, as in 500M or 10G",
                                    shown(text)));
  }
  return *number * unit;
}

Expected<Portion> parsePortion(std::string_view text) {
  if (!text.ends_with('%')) {
    auto size = parseSize(text);
    if (!size) return Failure(size.error());
    return Portion(*size);
  }
  const auto percent = parseNumber<unsigned>(text.substr(0, text.size() - 1));
  if (!percent || *percent > 100) {
    return fail(EINVAL, fmt::format("{} is not a percentage: use 0% to 100%", shown(text)));
  }
  return Portion(static_cast<double>(*percent));
}

std::string sizeText(double bytes) {
  constexpr double kStep = 1024;
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (bytes >= kStep && unit + 1 < std::size(kUnits)) {
    bytes /= kStep;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

std::string ageText(int64_t seconds) {
  struct Unit {
    int64_t seconds;
    const char* name;
  };
  constexpr Unit kUnits[] = {{86400, "d"}, {3600, "h"}, {60, "min"}};
  for (const Unit& unit : kUnits) {
    // Whole units only once there are two: "90 min" says more than "1 h".
    if (seconds >= 2 * unit.seconds) {
      return fmt::format("{} {}", seconds / unit.seconds, unit.name);
    }
  }
  return fmt::format("{} s", seconds);
}

std::string portionText(const Portion& portion) {
  if (const auto* bytes = std::get_if<uint64_t>(&portion)) {
    return sizeText(static_cast<double>(*bytes));
  }
  return fmt::format("{:.0f}%", std::get<double>(portion));
}

}  // namespace kilnfs
