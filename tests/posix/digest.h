// A short name for a long content, to be shown in a difference.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kilnfs::testing {

inline std::string digestOf(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return std::to_string(bytes.size()) + " bytes " + std::to_string(hash);
}

}  // namespace kilnfs::testing
