// Pseudo-random numbers that are the same on every machine.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

namespace kilnfs::bench {

/// A Weyl sequence through a mixing function (splitmix64, public domain).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// From 0 to n - 1; n is not 0.
  uint64_t below(uint64_t n) { return next() % n; }
  /// From 0 to less than 1.
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_;
};

/// Appends to `text` until it has `size` bytes: printable, in lines of 64.
inline void fillText(std::string& text, size_t size, uint64_t seed) {
  Random random(seed);
  while (text.size() < size) {
    char part[8];
    uint64_t bits = random.next();
    for (char& c : part) {
      c = static_cast<char>('@' + (bits & 63));
      bits >>= 8;
    }
    if (text.size() % 64 >= 56) part[7] = '\n';
    text.append(part, std::min(sizeof part, size - text.size()));
  }
}

}  // namespace kilnfs::bench
