// Rows 80 and 81: writing to control files and reading from them.

#include <algorithm>

#include "tests/posix/posix_test.h"

namespace kilnfs::testing {
namespace {

UniqueFd control(int flags = O_RDWR) {
  return open(Site::get().mnt("control"), flags);
}

std::string readAll(const UniqueFd& fd) {
  std::string out;
  char text[1000];
  for (ssize_t n; (n = ::read(fd.get(), text, sizeof text)) > 0;) {
    out.append(text, static_cast<size_t>(n));
  }
  return out;
}

int written(const UniqueFd& fd, const std::string& text) {
  const ssize_t n = ::write(fd.get(), text.data(), text.size());
  return n == static_cast<ssize_t>(text.size()) ? 0 : n < 0 ? errno : -1;
}

}  // namespace

LEASE_ROW_ON(Row80_OneWriteIsOneOrMoreWholeCommands, nullptr) {
  const UniqueFd fd = control();
  EXPECT_EQ(written(fd, "status"), 0);  // printf, without a newline
  EXPECT_EQ(readAll(fd).substr(0, 1), "{");
  EXPECT_EQ(written(fd, "status\n\nstatus\n"), 0);
  const std::string two = readAll(fd);
  EXPECT_EQ(std::count(two.begin(), two.end(), '\n'), 2);
  EXPECT_EQ(written(control(O_WRONLY | O_TRUNC), "status\n"), 0);
  EXPECT_EQ(written(control(O_WRONLY | O_APPEND), "status\n"), 0);
  EXPECT_EQ(::pwrite(fd.get(), "status\n", 7, 12345), 7);
}

LEASE_ROW_ON(Row80_WhatIsNoCommandIsRefusedAndExecutesNothing, nullptr) {
  Site& site = Site::get();
  const UniqueFd fd = control();
  EXPECT_EQ(written(fd, "nonsense\n"), EINVAL);
  EXPECT_NE(readAll(fd).find("\"EINVAL\""), std::string::npos);
  EXPECT_EQ(written(fd, "wait 'open"), EINVAL);
  EXPECT_EQ(written(fd, std::string("status\0x", 8)), EINVAL);
  EXPECT_EQ(written(fd, std::string(2 << 20, 'x')), E2BIG);
  EXPECT_EQ(written(fd, "wait nothing-of-this-name\n"), ENOENT);
  EXPECT_EQ(written(fd, "status\n"), 0);
  EXPECT_NE(get(site.mnt("errors")).find("nothing-of-this-name"), std::string::npos);
}

LEASE_ROW_ON(Row80_ManyWritersAtOnce, nullptr) {
  const Ran ran = shell(
      "{ for i in $(seq 20); do (exec 3<>control; echo status >&3 && cat <&3 | grep -c '^{') & "
      "done; "
      "wait; } | grep -cx 1",
      Site::get().mnt());
  EXPECT_EQ(ran.output, "20\n");
}

LEASE_ROW_ON(Row80_LongCommands, nullptr) {
  const std::string cache = Site::get().fresh("long");
  std::string lines;
  for (int i = 0; i < 1000; ++i) lines += "status\n";
  EXPECT_EQ(written(control(), lines), 0);
  EXPECT_GT(lines.size(), 4096u);
}

LEASE_ROW_ON(Row81_AnswersAreReadByAnyone, nullptr) {
  const std::string script =
      "cat README | head -c 7; cat metrics | wc -l | grep -vx 0 >/dev/null && echo; "
      "while read -r line; do echo \"$line\"; break; done < README; dd if=README bs=1 skip=3 "
      "count=3 "
      "2>/dev/null; echo; grep -c . errors >/dev/null; exec 3<>control; echo status >&3; read -r a "
      "<&3; echo \"$a\" | head -c 1";
  const Ran ran = shell(script, Site::get().mnt());
  EXPECT_EQ(ran.output.substr(0, 8), "kilnfs:\n") << ran.output;
  EXPECT_EQ(ran.output.back(), '{') << ran.output;
}

LEASE_ROW_ON(Row81_AnOpenFileServesWhatItWasAtOpen, nullptr) {
  Site& site = Site::get();
  const UniqueFd fd = open(site.mnt("metrics"), O_RDONLY);
  char first[64];
  char again[64];
  ASSERT_EQ(::pread(fd.get(), first, sizeof first, 10), 64);
  site.command("nonsense");
  ASSERT_EQ(::pread(fd.get(), again, sizeof again, 10), 64);
  EXPECT_EQ(std::string(first, 64), std::string(again, 64));
  EXPECT_EQ(::pread(fd.get(), again, sizeof again, 10 << 20), 0);
}

}  // namespace kilnfs::testing
