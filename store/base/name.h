// Ids of results and names of caches, checked at the door: [A-Za-z0-9_+-][A-Za-z0-9._+-]{0,199}.
// A Name that exists is valid, so it can be used as a file name below a directory of the store.
#pragma once

#include <compare>
#include <functional>
#include <string>
#include <string_view>

#include "store/base/error.h"

namespace kilnfs {

class Name {
 public:
  /// EINVAL with a sentence that says what a valid name is; `what` is the word for it ("id").
  static Expected<Name> parse(std::string_view text, std::string_view what = "name");
  static bool valid(std::string_view text);

  const std::string& str() const { return text_; }
  auto operator<=>(const Name&) const = default;

 private:
  explicit Name(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

using Id = Name;         // of a result or build
using CacheName = Name;  // of a cache

}  // namespace kilnfs

template <>
struct std::hash<kilnfs::Name> {
  size_t operator()(const kilnfs::Name& n) const noexcept {
    return std::hash<std::string>()(n.str());
  }
};
