// A file on disk, as far as it tells files apart.
#pragma once

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstdint>

namespace kilnfs {

struct BackingId {
  uint64_t ino = 0;
  uint32_t dev = 0;
  bool operator==(const BackingId&) const = default;
};

inline BackingId backingId(const struct stat& st) {
  // The kernel's device numbers have 12 and 20 bits.
  return {st.st_ino, (major(st.st_dev) << 20) | minor(st.st_dev)};
}

/// The finalizer of splitmix64: a bijection of 64-bit numbers.
inline uint64_t mix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

struct HashBackingId {
  size_t operator()(const BackingId& id) const {
    return mix64(id.ino ^ (static_cast<uint64_t>(id.dev) << 32));
  }
};

}  // namespace kilnfs
