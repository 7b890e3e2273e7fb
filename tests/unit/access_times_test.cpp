#include "fs/access_times.h"

#include <gtest/gtest.h>

namespace kilnfs {
namespace {

constexpr time_t kNow = 1'000'000;

struct stat times(time_t read, time_t written, time_t changed) {
  struct stat st = {};
  st.st_atim.tv_sec = read;
  st.st_mtim.tv_sec = written;
  st.st_ctim.tv_sec = changed;
  return st;
}

TEST(AccessTimes, MoveRelatively) {
  const AccessTimes relative(AccessTimes::Kept::relatively);
  EXPECT_FALSE(relative.move(times(kNow - 5, kNow - 6, kNow - 6), kNow)) << "read after all";
  EXPECT_TRUE(relative.move(times(kNow - 6, kNow - 6, kNow - 7), kNow)) << "as it was written";
  EXPECT_TRUE(relative.move(times(kNow - 6, kNow - 7, kNow - 6), kNow)) << "as it was changed";
  EXPECT_TRUE(relative.move(times(kNow - 86400, 1, 1), kNow)) << "a day ago";
  EXPECT_FALSE(relative.move(times(kNow - 86399, 1, 1), kNow));
  EXPECT_FALSE(relative.move(times(kNow + 90000, 1, 1), kNow)) << "in the future";
  struct stat st = times(5, 5, 5);
  st.st_atim.tv_nsec = 2;
  st.st_mtim.tv_nsec = st.st_ctim.tv_nsec = 1;
  EXPECT_FALSE(relative.move(st, 6));
}

TEST(AccessTimes, MoveNeverOrAlways) {
  const struct stat lately = times(kNow, 1, 1);
  const struct stat before = times(1, kNow, kNow);
  for (const struct stat& st : {lately, before}) {
    EXPECT_FALSE(AccessTimes(AccessTimes::Kept::never).move(st, kNow));
    EXPECT_TRUE(AccessTimes(AccessTimes::Kept::always).move(st, kNow));
  }
}

TEST(AccessTimes, OfWhatCannotBeLookedAtMayAllBeMoved) {
  EXPECT_TRUE(AccessTimes(std::string("/not/there")).move(times(kNow, 1, 1), kNow));
}

}  // namespace
}  // namespace kilnfs
