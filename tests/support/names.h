// What the unit tests share of names.
#pragma once

#include <string>

#include "store/base/name.h"

namespace kilnfs::testing {

/// A name that is known to be right.
inline Id id(const std::string& text) {
  return *Id::parse(text);
}

}  // namespace kilnfs::testing
