#include "store/base/name.h"

#include <gtest/gtest.h>

namespace kilnfs {
namespace {

TEST(NameTest, AcceptsWhatTheContractSays) {
  for (const char* good : {"a", "0", "_", "+", "-", "a.b", "a..b", "A-Z+0_9.x", "-rf"}) {
    EXPECT_TRUE(Name::valid(good)) << good;
  }
  EXPECT_TRUE(Name::valid(std::string(200, 'a')));
}

TEST(NameTest, RefusesTheRest) {
  using namespace std::string_view_literals;
  for (const auto bad : {""sv, "."sv, ".."sv, ".a"sv, "a/b"sv, "../x"sv, "a b"sv, "a\nb"sv,
                         "a\0b"sv, "\xc3\xa4"sv, "a:b"sv, "~"sv}) {
    EXPECT_FALSE(Name::valid(bad)) << bad;
  }
  const auto tooLong = Name::parse(std::string(300, 'a'), "id");
  ASSERT_FALSE(tooLong);
  EXPECT_EQ(tooLong.error().code, EINVAL);
  EXPECT_NE(tooLong.error().message.find("300 bytes"), std::string::npos);
  EXPECT_LT(tooLong.error().message.size(), 300U);
}

TEST(ErrorTest, NamesAndQuotes) {
  EXPECT_EQ(errnoName(ENOENT), "ENOENT");
  EXPECT_EQ(errnoName(123456), "EIO");
  EXPECT_EQ(inQuotes("a\n'\x01"), "'a\\x0a\\x27\\x01'");
}

}  // namespace
}  // namespace kilnfs
