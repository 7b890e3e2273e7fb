#include "store/base/name.h"

#include <fmt/format.h>

#include <algorithm>

namespace kilnfs {
namespace {

constexpr size_t kLongest = 200;

bool firstCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '+' || c == '-';
}

}  // namespace

bool Name::valid(std::string_view text) {
  return !text.empty() && text.size() <= kLongest && firstCharacter(text.front()) &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return c == '.' || firstCharacter(c); });
}

Expected<Name> Name::parse(std::string_view text, std::string_view what) {
  if (valid(text)) return Name(std::string(text));
  const std::string shown =
      text.size() > 60 ? inQuotes(text.substr(0, 60)) + fmt::format("... ({} bytes)", text.size())
                       : inQuotes(text);
  return fail(EINVAL, fmt::format("{} is not a valid {}: use 1 to {} of A-Z a-z 0-9 . _ + -, not "
                                  "starting with a dot",
                                  shown, what, kLongest));
}

}  // namespace kilnfs
