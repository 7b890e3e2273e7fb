// Commands that their writer's buffer cuts in two.
#include "store/control/words.h"
#include "tests/support/control_fixture.h"

namespace kilnfs {
namespace {

using testing::ControlTest;
using testing::Open;

constexpr size_t kBlock = ControlSession::kBlock;

TEST(WholeCommands, EndWithTheLastLineThatEndsOne) {
  EXPECT_EQ(wholeCommands(""), 0U);
  EXPECT_EQ(wholeCommands("help"), 0U);
  EXPECT_EQ(wholeCommands("help\n"), 5U);
  EXPECT_EQ(wholeCommands("help\n\nde"), 6U);
  EXPECT_EQ(wholeCommands("help\nbuild -c 'a\nb"), 5U);
  EXPECT_EQ(wholeCommands("help\nbuild -c \"a\n\\\"b\n"), 5U);
  EXPECT_EQ(wholeCommands("help\nbuild \\\n"), 5U);
  EXPECT_EQ(wholeCommands("help\nbuild -c 'a\nb'\nx"), 20U);
  EXPECT_EQ(wholeCommands(std::string_view("a\0b", 3)), 3U) << "never a command";
}

class ControlCut : public ControlTest {
 protected:
  /// What makes the first line end so that the next one begins `room` bytes before the block's end.
  static std::string comment(size_t room) {
    return "#" + std::string(kBlock - room - 2, 'x') + "\n";
  }
  /// Makes these results.
  void have(std::initializer_list<const char*> ids) {
    Open file = open();
    for (const char* id : ids) {
      EXPECT_EQ(file.write(std::string("build ") + id + " --wait -- true\n"), 0);
    }
  }
  std::string log(const std::string& id) {
    return testing::readFile(store_->logFile(*Id::parse(id)).value_or(""));
  }
  bool has(const std::string& id) { return testing::exists(store_->root() + "/result/" + id); }
};

TEST_F(ControlCut, ACommandIsWholeAgainWithTheNextWrite) {
  have({"v1", "v1000"});
  Open file = open();
  EXPECT_EQ(file.write(comment(9) + "delete v1"), 0);
  EXPECT_TRUE(has("v1")) << "not what was meant";
  EXPECT_EQ(file.write("000\n"), 0);
  EXPECT_TRUE(has("v1"));
  EXPECT_FALSE(has("v1000"));
  EXPECT_EQ(file.readAll(), "{\"id\":\"v1000\",\"ok\":true}\n");
}

TEST_F(ControlCut, AQuotedOneMayBeCutAtALine) {
  Open file = open();
  const std::string first = "build r --wait -c 'echo one\n";
  EXPECT_EQ(file.write(comment(first.size()) + first), 0);
  EXPECT_EQ(file.write("echo two'\n"), 0);
  EXPECT_EQ(log("r"), "one\ntwo\n");
}

TEST_F(ControlCut, ALongOneTakesSeveralWrites) {
  Open file = open();
  std::string command = "build r --wait -- echo " + std::string(3 * kBlock, 'x') + "\n";
  for (; command.size() > kBlock; command.erase(0, kBlock)) {
    EXPECT_EQ(file.write(command.substr(0, kBlock)), 0);
  }
  EXPECT_FALSE(has("r"));
  EXPECT_EQ(file.write(command), 0);
  EXPECT_EQ(log("r").size(), 3 * kBlock + 1);
}

TEST_F(ControlCut, ButNotMoreThanOneWriteMayHold) {
  Open file = open();
  const std::string block(kBlock, 'x');
  for (size_t held = 0; held < ControlSession::kLongestWrite; held += kBlock) {
    EXPECT_EQ(file.write(block), 0);
  }
  EXPECT_EQ(file.write(block), E2BIG);
}

TEST_F(ControlCut, OnlyBlocksAreCut) {
  have({"a"});
  Open file = open();
  EXPECT_EQ(file.write("delete a"), 0) << "as from a program that writes commands by themselves";
  EXPECT_FALSE(has("a"));
  EXPECT_EQ(file.write(comment(9) + "status 'x"), 0);
  EXPECT_EQ(file.write("status 'x"), EINVAL) << "closes the quote, and has words too many";
}

TEST_F(ControlCut, WhatIsCutWhenTheFileIsClosedIsNotExecuted) {
  have({"a"});
  EXPECT_EQ(open().write(comment(8) + "delete a"), 0);
  EXPECT_TRUE(has("a"));
  EXPECT_NE(
      control_->errors().find("'delete a': EINVAL: not executed: it has no newline at its end"),
      std::string::npos)
      << control_->errors();
}

TEST_F(ControlCut, AfterAFailureTheRestIsNoCommand) {
  have({"a"});
  Open file = open();
  const std::string fails = "wait nothing\n";
  EXPECT_EQ(file.write(fails + comment(fails.size() + 7) + "status "), ENOENT);
  EXPECT_EQ(file.write("delete a\n"), EINVAL);
  EXPECT_TRUE(has("a"));
  EXPECT_NE(file.readAll().find("opened anew"), std::string::npos);
  EXPECT_EQ(open().write("delete a\n"), 0);
}

TEST_F(ControlCut, NobodyCompletesAnothersCommand) {
  have({"a"});
  Open file = open();
  EXPECT_EQ(file.write(comment(7) + "delete "), 0);
  Requester other = me_;
  other.uid += 1;
  EXPECT_EQ(file.session().write(kBlock, "a\n", other, file.interrupt()).error().code, EINVAL);
  EXPECT_TRUE(has("a"));
}

}  // namespace
}  // namespace kilnfs
