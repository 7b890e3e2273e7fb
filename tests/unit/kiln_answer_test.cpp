#include "tools/kiln/answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/kiln/build_finder.h"
#include "tools/kiln/progress.h"
#include "tools/kiln/status_table.h"

namespace kilnfs {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

int statusOf(const char* line) {
  return exitStatus(lastAnswer(line).value());
}

TEST(KilnAnswer, TheLastLineCounts) {
  const auto answer =
      lastAnswer("{\"ok\":true,\"id\":\"a\"}\n{\"ok\":false,\"errno\":\"ENOENT\"}\n");
  ASSERT_TRUE(answer);
  EXPECT_FALSE(answer->ok);
  EXPECT_EQ(answer->errnoName, "ENOENT");
}

TEST(KilnAnswer, HelpTextAndNoiseAreNoAnswer) {
  for (const char* text :
       {"", "\n", "build [ID]\nwait ID...\n", "{}", "[1]\n", "{\"ok\":1}\n", "{\"ok\":"}) {
    EXPECT_FALSE(lastAnswer(text)) << text;
  }
}

TEST(KilnAnswer, MembersAsText) {
  const auto answer =
      lastAnswer(R"({"ok":true,"id":"x","cached":true,"generation":7,"none":null})");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->text("id"), "x");
  EXPECT_EQ(answer->text("cached"), "true");
  EXPECT_EQ(answer->text("generation"), "7");
  EXPECT_EQ(answer->text("none"), "");
  EXPECT_EQ(answer->text("missing"), "");
}

TEST(KilnAnswer, ExitStatus) {
  EXPECT_EQ(statusOf(R"({"ok":true})"), 0);
  EXPECT_EQ(statusOf(R"({"ok":true,"exit":0})"), 0);
  EXPECT_EQ(statusOf(R"({"ok":false,"errno":"EIO","exit":3})"), 3);
  EXPECT_EQ(statusOf(R"({"ok":false,"errno":"EIO","signal":9})"), 137);
  EXPECT_EQ(statusOf(R"({"ok":false,"errno":"EIO","exit":0})"), 1);
  EXPECT_EQ(statusOf(R"({"ok":false,"errno":"ENOENT"})"), 1);
  EXPECT_EQ(statusOf(R"({"ok":false,"errno":"EINVAL"})"), 2);
  EXPECT_EQ(statusOf(R"({"ok":false,"errno":"EIO","exit":"text","signal":null})"), 1);
  EXPECT_EQ(
      statusOf(R"({"ok":false,"errno":"EIO","builds":[{"id":"a","exit":0},{"id":"b","exit":4}]})"),
      4);
  EXPECT_EQ(statusOf(R"({"ok":false,"errno":"ENOENT","builds":[{"id":"a"}, 3]})"), 1);
}

TEST(KilnAnswer, AFailureIsNeverSilent) {
  EXPECT_EQ(failureText(*lastAnswer(R"({"ok":false,"message":"no base x"})")), "no base x");
  EXPECT_EQ(failureText(*lastAnswer(R"({"ok":false,"errno":"EIO"})")), "EIO");
  EXPECT_NE(failureText(*lastAnswer(R"({"ok":false})")), "");
}

TEST(KilnStatus, TablesForPeople) {
  const auto status = nlohmann::json::parse(R"({"ok":true,"builds":[
    {"state":"running","id":"long-name-of-a-build","uid":0},{"id":"b","state":"queued","uid":1000}],
    "leases":[],"space":{"freeBytes":3221225472,"mode":"copy"},"queue":["b"]})");
  const auto text = statusTable(status);
  EXPECT_THAT(text, HasSubstr("builds: 2\n  id                    state    uid\n"));
  EXPECT_THAT(text, HasSubstr("  b                     queued   1000\n"));
  EXPECT_THAT(text, HasSubstr("leases: none\n"));
  EXPECT_THAT(text, HasSubstr("freeBytes: 3.0 GiB\n"));
  EXPECT_THAT(text, Not(HasSubstr("ok")));
}

TEST(KilnStatus, ResultsAreATableAndASum) {
  const auto answer = nlohmann::json::parse(R"({"ok":true,"bytes":4096,"results":[
    {"id":"a","action":"kept","why":"it is pinned"},
    {"id":"bb","action":"deleted","bytes":4096,"why":"not used for 3 d"}]})");
  EXPECT_EQ(answerText(answer),
            "  id  action   bytes    why\n"
            "  bb  deleted  4.0 KiB  not used for 3 d\n"
            "  a   kept     -        it is pinned\n"
            "1 deleted, 1 kept\n");
  EXPECT_EQ(answerText(nlohmann::json::parse(R"({"results":[]})")), "no results\n");
}

TEST(KilnStatus, StrangeAnswersAreShownNotFatal) {
  for (const char* text : {R"({"builds":[1,"x",null,[2]]})", R"({"builds":{"a":[1]}})",
                           R"({"builds":[{"a":{"b":1}},{"c":true}]})", "{}"}) {
    const auto status = nlohmann::json::parse(text);
    statusTable(status);
    EXPECT_EQ(buildState(status, "x"), "waiting") << text;
  }
}

TEST(KilnStatus, PlaceInTheQueue) {
  const auto status = nlohmann::json::parse(R"({"builds":[{"id":"a","state":"running"},
    {"id":"e","state":"saved"}],"queue":[{"id":"b","state":"queued"},{"id":"c","state":"queued"}]})");
  EXPECT_EQ(buildState(status, "a"), "running");
  EXPECT_EQ(buildState(status, "b"), "queued");
  EXPECT_EQ(buildState(status, "c"), "queued, 1 before it");
  EXPECT_EQ(buildState(status, "d"), "waiting");
}

TEST(KilnProgress, Durations) {
  using std::chrono::milliseconds;
  EXPECT_EQ(durationText(milliseconds(7)), "7 ms");
  EXPECT_EQ(durationText(milliseconds(12345)), "12.3 s");
  EXPECT_EQ(durationText(milliseconds(245000)), "4 min 05 s");
}

TEST(KilnEvents, ABuildIsFoundByItsRequester) {
  const std::string lines =
      "{\"event\":\"lease\",\"lease\":\"npm.1\",\"pid\":7}\nnoise\n"
      "{\"event\":\"build\",\"id\":\"other\",\"pid\":8}\n"
      "{\"event\":\"build\",\"id\":\"mine\",\"pid\":7}\n";
  EXPECT_EQ(buildRequestedBy(7, "", lines), "mine");
  EXPECT_EQ(buildRequestedBy(9, "", lines), "");
  EXPECT_EQ(buildRequestedBy(9, "mine", lines), "mine") << "whoever asked for it";
  EXPECT_EQ(buildRequestedBy(7, "mine", ""), "");
}

}  // namespace
}  // namespace kilnfs
