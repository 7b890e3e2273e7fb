// Durations and sizes as people write and read them.
#include "store/base/units.h"

#include <gtest/gtest.h>

namespace kilnfs {
namespace {

using std::chrono::milliseconds;

TEST(ParseDuration, Units) {
  EXPECT_EQ(*parseDuration("90"), milliseconds(90000));
  EXPECT_EQ(*parseDuration("90s"), milliseconds(90000));
  EXPECT_EQ(*parseDuration("5m"), milliseconds(300000));
  EXPECT_EQ(*parseDuration("2h"), milliseconds(7200000));
  EXPECT_EQ(*parseDuration("1d"), milliseconds(86400000));
  EXPECT_EQ(*parseDuration("500ms"), milliseconds(500));
  for (const char* bad : {"", "s", "ms", "-1", "+1", "1.5", "1x", "0", "0ms", " 1", "1 ",
                          "99999999d", "99999999999999999999"}) {
    EXPECT_FALSE(parseDuration(bad)) << bad;
  }
}

TEST(ParseSize, Units) {
  EXPECT_EQ(*parseSize("0"), 0U);
  EXPECT_EQ(*parseSize("4096"), 4096U);
  EXPECT_EQ(*parseSize("3K"), 3072U);
  EXPECT_EQ(*parseSize("3k"), 3072U);
  EXPECT_EQ(*parseSize("500M"), 500ULL << 20);
  EXPECT_EQ(*parseSize("10G"), 10ULL << 30);
  EXPECT_EQ(*parseSize("2T"), 2ULL << 40);
  EXPECT_EQ(*parseSize("16383P"), 16383ULL << 50);
  for (const char* bad : {"", "K", "-1", "+1", "1.5G", "1GG", "1B", " 1", "1 ", "10%", "16384P",
                          "99999999999999999999"}) {
    EXPECT_FALSE(parseSize(bad)) << bad;
  }
}

TEST(ParsePortion, IsASizeOrAPercentage) {
  EXPECT_EQ(std::get<uint64_t>(*parsePortion("1K")), 1024U);
  EXPECT_EQ(std::get<double>(*parsePortion("0%")), 0.0);
  EXPECT_EQ(std::get<double>(*parsePortion("100%")), 100.0);
  for (const char* bad : {"", "%", "101%", "-1%", "1.5%", "1K%", "1 %"}) {
    EXPECT_FALSE(parsePortion(bad)) << bad;
  }
  EXPECT_EQ(portionText(Portion(10.0)), "10%");
  EXPECT_EQ(portionText(Portion(uint64_t{1536})), "1.5 KiB");
}

TEST(AgeText, SaysTheLargestUnitOfWhichThereAreTwo) {
  EXPECT_EQ(ageText(0), "0 s");
  EXPECT_EQ(ageText(119), "119 s");
  EXPECT_EQ(ageText(120), "2 min");
  EXPECT_EQ(ageText(7199), "119 min");
  EXPECT_EQ(ageText(7200), "2 h");
  EXPECT_EQ(ageText(3 * 86400), "3 d");
}

TEST(SizeText, Units) {
  EXPECT_EQ(sizeText(0), "0 B");
  EXPECT_EQ(sizeText(1023), "1023 B");
  EXPECT_EQ(sizeText(1024), "1.0 KiB");
  EXPECT_EQ(sizeText(1.5 * (1 << 30)), "1.5 GiB");
}

}  // namespace
}  // namespace kilnfs
