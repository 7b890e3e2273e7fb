// kiln where stdin, stdout or stderr is closed.
#include <gmock/gmock.h>

#include "tests/support/kiln_fixture.h"

namespace kilnfs::testing {
namespace {

using ::testing::HasSubstr;

using KilnStreams = Kiln;

// A file of kiln's own would get the number of the one that is closed.
TEST_F(KilnStreams, ALogIsNeverWrittenToControl) {
  EXPECT_EQ(kiln("build hello -- true").status, 0);
  int round = 0;
  for (const char* closed :
       {">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&-", "<&- 2>&-", "<&- >&- 2>&-"}) {
    const Ran ran = sh("kiln build evil" + std::to_string(round++) +
                       " -- sh -c 'echo \"delete hello\"; echo \"delete hello\" >&2' " + closed);
    const bool silent = std::string(closed).find(" >") != std::string::npos || closed[0] == '>';
    EXPECT_EQ(ran.status, silent ? 1 : 0) << closed << ran.output;
  }
  EXPECT_EQ(output("kiln ls results | grep -c evil"), "7\n");
  EXPECT_THAT(output("kiln ls results"), HasSubstr("hello\n"));
  EXPECT_EQ(readFile(mnt("errors")), "");
}

TEST_F(KilnStreams, WhatCannotBeSaidIsAFailure) {
  EXPECT_THAT(kiln("build a -- echo log >&-").output, HasSubstr("kiln: stdout: Bad file"));
  for (const char* words : {"ls", "status", "events", "log a", "help", "help control", "--version",
                            "--json pin a", "build --detach b -- true"}) {
    EXPECT_EQ(sh(std::string("kiln ") + words + " >&-").status, 1) << words;
  }
}

}  // namespace
}  // namespace kilnfs::testing
