#include "tools/kiln/words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <memory>

namespace kilnfs {
namespace {

using ::testing::ElementsAre;

// What a real shell makes of the words: each, then a NUL.
std::string throughShell(const Words& words) {
  const std::string script = "printf '%s\\0' " + commandLine(words);
  const std::string command = "sh -c " + quoteWord(script);
  const std::unique_ptr<FILE, int (*)(FILE*)> out(popen(command.c_str(), "r"), pclose);
  std::string text;
  std::array<char, 4096> block{};
  while (const size_t n = fread(block.data(), 1, block.size(), out.get())) {
    text.append(block.data(), n);
  }
  return text;
}

TEST(KilnWords, SurviveAShell) {
  const Words words = {
      "plain",    "",          "two words", "it's",     "\"double\"", "$HOME `id` $(id)",
      "back\\sl", "new\nline", "tab\there", "#comment", "~",          "a;b|c&d>e<f*?[x]",
      "!",        "'",         "''\\''",    "\xff\xfe", "\xc3\xa4",   "--copy=a b:c"};
  std::string expected;
  for (const auto& word : words) expected += word + std::string(1, '\0');
  EXPECT_EQ(throughShell(words), expected);
}

TEST(KilnWords, PlainWordsStayReadable) {
  EXPECT_EQ(commandLine({"build", "app-1", "--base", "x.y", "--", "make", "CC=gcc"}),
            "build app-1 --base x.y -- make CC=gcc\n");
}

TEST(KilnWords, RelativePathsOfBuildBecomeAbsolute) {
  EXPECT_THAT(withAbsolutePaths({"build", "x", "--copy", "src:in", "--copy=.", "--copy", "/abs",
                                 "--env", "--copy", "-c", "--copy", "--", "--copy", "rel"},
                                "/home/me"),
              ElementsAre("build", "x", "--copy", "/home/me/src:in", "--copy=/home/me/.", "--copy",
                          "/abs", "--env", "--copy", "-c", "--copy", "--", "--copy", "rel"));
}

TEST(KilnWords, RelativePathsOfImportAndExportBecomeAbsolute) {
  EXPECT_THAT(withAbsolutePaths({"import", "base", "tree"}, "/"),
              ElementsAre("import", "base", "/tree"));
  EXPECT_THAT(withAbsolutePaths({"export", "base", "../out"}, "/a/b"),
              ElementsAre("export", "base", "/a/b/../out"));
  EXPECT_THAT(withAbsolutePaths({"delete", "base", "tree"}, "/a"),
              ElementsAre("delete", "base", "tree"));
}

TEST(KilnWords, BuildWaitsUnlessDetached) {
  const auto waiting = splitBuildWords({"build", "x", "--json", "-c", "--detach", "--", "--json"});
  EXPECT_THAT(waiting.words, ElementsAre("build", "--wait", "x", "-c", "--detach", "--", "--json"));
  EXPECT_TRUE(waiting.json);
  EXPECT_FALSE(waiting.detach);
  const auto detached = splitBuildWords({"build", "--detach", "x", "--wait", "--env", "--detach"});
  EXPECT_THAT(detached.words, ElementsAre("build", "x", "--env", "--detach"));
  EXPECT_TRUE(detached.detach);
  EXPECT_THAT(splitBuildWords({"build"}).words, ElementsAre("build", "--wait"));
}

TEST(KilnWords, ABuildsIdIsItsOnlyWordThatIsNoOption) {
  EXPECT_EQ(splitBuildWords({"build", "--base", "b", "--wait", "x", "-c", "y"}).id, "x");
  EXPECT_EQ(splitBuildWords({"build", "--base", "b", "--copy=d", "--", "x"}).id, "");
}

TEST(KilnWords, HelpIsAskedForBeforeTheCommandAndNotAsAValue) {
  EXPECT_TRUE(asksForHelp({"build", "--help"}));
  EXPECT_TRUE(asksForHelp({"build", "x", "--base", "y", "-h"}));
  EXPECT_FALSE(asksForHelp({"build", "x", "--", "--help"}));
  EXPECT_FALSE(asksForHelp({"build", "x", "-c", "--help"}));
  EXPECT_FALSE(asksForHelp({"build"}));
}

TEST(KilnWords, CacheOptions) {
  EXPECT_EQ(parseCacheOption("npm")->name, "npm");
  EXPECT_EQ(parseCacheOption("npm")->directory, "");
  EXPECT_EQ(parseCacheOption("npm:/x=y:z")->directory, "/x=y:z");
  EXPECT_EQ(parseCacheOption("npm=a dir:b")->directory, "a dir:b");
  for (const char* bad : {"", ":", "=x", "npm:", "npm=", "a/b", "../x:y", ".hidden"}) {
    const auto option = parseCacheOption(bad);
    ASSERT_FALSE(option) << bad;
    EXPECT_EQ(option.error().code, EINVAL) << bad;
    EXPECT_NE(option.error().message, "") << bad;
  }
}

}  // namespace
}  // namespace kilnfs
