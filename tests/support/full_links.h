// Files with as many links as the file system allows (ext4: 65,000).
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

namespace kilnfs::testing {

/// Makes links to a file until no more than `free` can be made, in a new directory in `dir`.
inline void leaveLinks(const std::string& file, unsigned free, const std::string& dir) {
  // What has no limit here will never fail: no more than ext4 takes.
  constexpr int kMost = 66000;
  std::string full = dir + "/full.XXXXXX";
  ASSERT_NE(::mkdtemp(full.data()), nullptr);
  int made = 0;
  while (made < kMost && ::link(file.c_str(), fmt::format("{}/{}", full, made).c_str()) == 0) {
    ++made;
  }
  for (unsigned i = 1; i <= free; ++i) {
    ASSERT_EQ(::unlink(fmt::format("{}/{}", full, made - static_cast<int>(i)).c_str()), 0);
  }
}

}  // namespace kilnfs::testing
