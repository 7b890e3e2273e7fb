// Where answers are in an open control file, for every way that programs read and write one.
#include "store/control/answers.h"

#include <gtest/gtest.h>

namespace kilnfs {
namespace {

/// An open file with one offset, as the kernel keeps it.
class File {
 public:
  void write(const std::string& command, const std::string& answer, bool fails = false) {
    answers_.beginWrite(at_);
    answers_.add(answer);
    if (!fails) at_ += command.size();
    answers_.endWrite(at_);
  }
  std::string read(size_t size) {
    std::string out = answers_.read(answers_.place(at_), size);
    at_ += out.size();
    return out;
  }
  /// As a shell's read: a block, then back to the end of the line.
  std::string readLine() {
    std::string block = read(4096);
    const size_t end = block.find('\n');
    if (end == std::string::npos) return block;
    at_ -= block.size() - end - 1;
    return block.substr(0, end);
  }
  std::string readAll(size_t block = 4096) {
    std::string out;
    for (std::string part; !(part = read(block)).empty();) out += part;
    return out;
  }
  void seek(uint64_t offset) { at_ = offset; }

 private:
  Answers answers_;
  uint64_t at_ = 0;
};

TEST(Answers, AShellReadsOneLineForEachCommand) {
  File file;
  for (int i = 0; i < 50; ++i) {
    const std::string answer = std::string(i * 7 % 40, 'x') + std::to_string(i);
    file.write("command number " + std::to_string(i) + "\n", answer + "\n");
    ASSERT_EQ(file.readLine(), answer);
  }
  EXPECT_EQ(file.readLine(), "");
}

TEST(Answers, AShellThatReadsLessThanThereIsGetsTheRestLater) {
  File file;
  file.write("a\nb\n", "A\nB\n");
  EXPECT_EQ(file.readLine(), "A");
  file.write("c\n", "C\n");
  EXPECT_EQ(file.readLine(), "B");
  EXPECT_EQ(file.readLine(), "C");
}

TEST(Answers, SequentialReadsInAnyBlockSize) {
  for (const size_t block : {1U, 3U, 7U, 4096U}) {
    File file;
    file.write("abc\n", "0123456789\n");
    EXPECT_EQ(file.readAll(block), "0123456789\n") << block;
    file.write("d\n", "more\n");
    EXPECT_EQ(file.readAll(block), "more\n") << block;
  }
}

TEST(Answers, TwoWritesThenOneRead) {
  File file;
  file.write("a\n", "A\n");
  file.write("b\n", "B\n");
  EXPECT_EQ(file.readAll(), "A\nB\n");
  EXPECT_EQ(file.readAll(), "");
}

TEST(Answers, WhoSeeksToZeroFindsThemThere) {
  for (const size_t block : {1U, 3U, 4096U}) {
    File file;
    file.write("a\n", "a long answer to a short command\n");
    file.seek(0);
    EXPECT_EQ(file.readAll(block), "a long answer to a short command\n") << block;
    file.write("b\n", "B\n");  // at the end of what was read
    file.seek(0);
    EXPECT_EQ(file.readAll(block), "B\n") << block;
    file.seek(0);
    file.write("c\n", "C\n");  // at 0 again
    file.seek(0);
    EXPECT_EQ(file.readAll(block), "C\n") << block;
  }
}

TEST(Answers, SeekingToZeroAfterALongCommand) {
  File file;
  file.write(std::string(100, 'c'), "short\n");
  file.seek(0);
  EXPECT_EQ(file.readAll(), "short\n");
}

TEST(Answers, ReadTwice) {
  File file;
  file.write("a\n", "A\n");
  EXPECT_EQ(file.readAll(), "A\n");
  file.seek(2);
  EXPECT_EQ(file.readAll(), "A\n");
  file.seek(0);
  EXPECT_EQ(file.readAll(), "A\n");
}

TEST(Answers, AfterAFailedWriteTheyAreWhereItBegan) {
  File file;
  file.write("bad\n", "error 1\n", true);
  EXPECT_EQ(file.readLine(), "error 1");
  file.write("worse\n", "error 2\n", true);
  EXPECT_EQ(file.readLine(), "error 2");
  file.write("good\n", "fine\n");
  EXPECT_EQ(file.readLine(), "fine");
}

TEST(Answers, AWriterWhoNeverReadsDoesNotGrowThem) {
  Answers answers;
  const std::string line(1000, 'x');
  for (int i = 0; i < 5000; ++i) {
    answers.beginWrite(0);
    answers.add(line + std::to_string(i) + "\n");
    answers.endWrite(0);
  }
  EXPECT_LE(answers.size(), Answers::kKept);
  const std::string text = answers.read(answers.place(0), Answers::kKept);
  EXPECT_EQ(text.substr(0, 3), "xxx") << "whole lines are dropped";
  EXPECT_EQ(text.substr(text.size() - 5), "4999\n");
}

}  // namespace
}  // namespace kilnfs
