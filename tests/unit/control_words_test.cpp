// Splitting and quoting, as a POSIX shell does.
#include "store/control/words.h"

#include <gtest/gtest.h>

#include <random>

namespace kilnfs {
namespace {

using Commands = std::vector<Words>;

struct Good {
  const char* text;
  Commands commands;
};

class SplitGood : public ::testing::TestWithParam<Good> {};

TEST_P(SplitGood, GivesTheWords) {
  const auto commands = splitCommands(GetParam().text);
  ASSERT_TRUE(commands) << commands.error().message;
  EXPECT_EQ(*commands, GetParam().commands);
}

INSTANTIATE_TEST_SUITE_P(
    Table, SplitGood,
    ::testing::Values(Good{"", {}}, Good{"\n\n  \t\n", {}}, Good{"status", {{"status"}}},
                      Good{"status\n", {{"status"}}}, Good{"  wait  a\tb \n", {{"wait", "a", "b"}}},
                      Good{"a\nb\n", {{"a"}, {"b"}}}, Good{"a 'b c' d", {{"a", "b c", "d"}}},
                      Good{"a 'b\nc'\nd", {{"a", "b\nc"}, {"d"}}},
                      Good{"a \"b\nc\"", {{"a", "b\nc"}}}, Good{"a ''", {{"a", ""}}},
                      Good{"a \"\"", {{"a", ""}}}, Good{"''", {{""}}},
                      Good{"a'b'\"c\"d", {{"abcd"}}}, Good{"a\\ b", {{"a b"}}},
                      Good{"\\'", {{"'"}}}, Good{"a \\\nb", {{"a", "b"}}}, Good{"a\\\nb", {{"ab"}}},
                      Good{"\\\nb", {{"b"}}}, Good{"\\\n", {}}, Good{"\"a\\\nb\"", {{"ab"}}},
                      Good{"'a\\\nb'", {{"a\\\nb"}}},
                      Good{"\"\\\"\\\\\\$\\`\\a\"", {{"\"\\$`\\a"}}}, Good{"'\\'", {{"\\"}}},
                      Good{"# all comment", {}}, Good{"a # b\nc", {{"a"}, {"c"}}},
                      Good{"a#b", {{"a#b"}}}, Good{"a '#' \\# \"#\"", {{"a", "#", "#", "#"}}},
                      Good{"# it's\na", {{"a"}}}, Good{"a ''#b", {{"a", "#b"}}},
                      Good{"$HOME `x` $(y) * ? ~ ; & | < >",
                           {{"$HOME", "`x`", "$(y)", "*", "?", "~", ";", "&", "|", "<", ">"}}},
                      Good{"\"$x\" '`'", {{"$x", "`"}}}, Good{"a\rb", {{"a\rb"}}},
                      Good{"\xff\xfe \x01", {{"\xff\xfe", "\x01"}}},
                      Good{"build x -c 'a; b\n# not a comment\nc'",
                           {{"build", "x", "-c", "a; b\n# not a comment\nc"}}}));

struct Misquoted {
  std::string text;
  const char* says;
};

class SplitBad : public ::testing::TestWithParam<Misquoted> {};

TEST_P(SplitBad, IsRefusedWithThePlace) {
  const auto commands = splitCommands(GetParam().text);
  ASSERT_FALSE(commands);
  EXPECT_EQ(commands.error().code, EINVAL);
  EXPECT_NE(commands.error().message.find(GetParam().says), std::string::npos)
      << commands.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Table, SplitBad,
    ::testing::Values(
        Misquoted{"a 'b", "single quote is opened and never closed (line 1, column 3)"},
        Misquoted{"a\nb \"c\nd", "double quote is opened and never closed (line 2, column 3)"},
        Misquoted{"'", "line 1, column 1"}, Misquoted{"\"", "line 1, column 1"},
        Misquoted{"\"\\", "double quote"}, Misquoted{"\"a\\\"", "double quote"},
        Misquoted{"a \\", "a backslash at the end"}, Misquoted{"it's", "line 1, column 3"},
        Misquoted{std::string("a\0b", 3), "NUL byte at byte 1"},
        Misquoted{std::string("'\0'", 3), "NUL"}));

TEST(QuoteWord, LeavesPlainWordsAlone) {
  for (const char* word : {"a", "build", "--wait", "K=V", "a/b.c", "x:y", "1,2@3%4+_"}) {
    EXPECT_EQ(quoteWord(word), word);
  }
}

TEST(QuoteWord, QuotesTheRest) {
  EXPECT_EQ(quoteWord(""), "''");
  EXPECT_EQ(quoteWord("a b"), "'a b'");
  EXPECT_EQ(quoteWord("it's"), "'it'\\''s'");
  EXPECT_EQ(quoteWord("#"), "'#'");
  EXPECT_EQ(quoteWord("~"), "'~'");
}

TEST(QuoteWord, SurvivesSplittingWhateverTheBytes) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    Words words(1 + random() % 4);
    for (std::string& word : words) {
      for (size_t n = random() % 12; n > 0; --n) {
        constexpr std::string_view kNasty = "ab '\"\\\n\t#$`;\r\x7f\xff";
        word += kNasty[random() % kNasty.size()];
      }
    }
    const auto commands = splitCommands(joinWords(words));
    ASSERT_TRUE(commands) << joinWords(words);
    ASSERT_EQ(*commands, Commands{words}) << joinWords(words);
  }
}

}  // namespace
}  // namespace kilnfs
