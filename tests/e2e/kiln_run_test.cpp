// kiln run: a command with caches, and what is left of them however it ends.
#include <gmock/gmock.h>
#include <sys/wait.h>

#include <filesystem>

#include "tests/support/kiln_fixture.h"

namespace kilnfs::testing {
namespace {

using ::testing::HasSubstr;

using KilnRun = Kiln;

TEST_F(KilnRun, LeasesAndPublishes) {
  EXPECT_EQ(sh("kiln run --cache npm:place -- sh -c 'echo 1 > place/f; exit 5'").status, 5);
  EXPECT_FALSE(std::filesystem::is_symlink(std::filesystem::symlink_status(scratch() + "/place")));
  EXPECT_EQ(output("kiln run --cache npm -- cat '" + mnt("caches/npm/f") + "'"), "1\n");
  EXPECT_EQ(output("kiln ls leases"), "");
}

TEST_F(KilnRun, DiscardsWhatAKilledCommandLeft) {
  sh("kiln run --cache npm:place -- sh -c 'echo good > place/f'");
  const Ran killed = sh("kiln run --cache npm:place -- sh -c 'echo bad > place/f; kill -9 $$'");
  EXPECT_EQ(killed.status, 137);
  EXPECT_THAT(killed.output, HasSubstr("discarded"));
  const Ran late = sh(
      "kiln run --cache npm:place --timeout 200ms -- sh -c 'echo bad > place/f; exec sleep 1000'");
  EXPECT_EQ(late.status, 143);
  EXPECT_EQ(output("kiln run --cache npm:place -- cat place/f"), "good\n");
}

TEST_F(KilnRun, DiscardsAlsoIfNobodyReadsWhatItSays) {
  // A pipe that has lost its reader by the time kiln complains.
  const Ran late =
      sh("mkfifo pipe; exec 3<>pipe 4>pipe 3<&-; kiln run --cache npm:place --timeout 1 -- "
         "sh -c 'echo half > place/f; exec sleep 1000' 2>&4");
  EXPECT_EQ(late.status, 143);
  EXPECT_EQ(output("kiln run --cache npm:again -- ls again"), "");
  EXPECT_THAT(output("kiln events"), HasSubstr("\"discarded\""));
}

TEST_F(KilnRun, ThatIsKilledTakesItsCommandAlongAndPublishesNothing) {
  const Ran ran = sh(R"x(mkfifo ready
kiln run --cache npm:place -- sh -c 'trap "" TERM; echo half >place/f; echo $$ >ready
  exec sleep 1000' &
read job <ready; echo $job >job
kill -9 $!; wait $! 2>/dev/null
tries=0
until grep -q '^State:.Z' /proc/$job/status || [ $((tries += 1)) = 200 ]; do sleep 0.05; done
[ $tries != 200 ] || echo it goes on
kill -9 $job
until kiln events | grep -q '"state":"\(discarded\|published\)"'; do sleep 0.05; done
kiln run --cache npm:again -- ls again)x");
  EXPECT_EQ(ran.output, "");
  // It is our child now.
  EXPECT_GT(::waitpid(std::stoi(readFile(scratch() + "/job")), nullptr, 0), 0);
}

TEST_F(KilnRun, SaysWhoWasFirst) {
  const Ran ran =
      sh("kiln run --cache npm:mine -- sh -c 'echo lost > mine/f; "
         "lease=$(kiln --json lease npm --as other | sed "
         "\"s/.*\\\"lease\\\":\\\"\\([^\\\"]*\\).*/\\1/\"); "
         "echo won > \"$KILN_MOUNT/leases/$lease/f\"; kiln release $lease'");
  EXPECT_EQ(ran.status, 0);
  EXPECT_THAT(ran.output, HasSubstr("discarded: generation 1 was published meanwhile"));
  EXPECT_EQ(output("kiln run --cache npm:mine -- cat mine/f"), "won\n");
}

TEST_F(KilnRun, TakesTheDurationsThatABuildTakes) {
  for (const char* bad : {"0", "-5", "1e300d", "1h30m", "1.5s", "soon"}) {
    const std::string option = std::string("--timeout=") + bad;
    EXPECT_EQ(kiln("run --cache npm " + option + " -- true").status, 2) << bad;
    EXPECT_EQ(kiln("build a " + option + " -- true").status, 2) << bad;
  }
  for (const char* good : {"500ms", "90", "90s", "5m", "2h", "1d"}) {
    EXPECT_EQ(kiln(std::string("run --cache npm --timeout ") + good + " -- sh -c :").status, 0)
        << good;
  }
}

TEST_F(KilnRun, MakesTheDirectoriesAboveThePlace) {
  EXPECT_EQ(kiln("run --cache npm:a/b/c/ -- sh -c 'echo 1 > a/b/c/f'").status, 0);
  EXPECT_EQ(output("kiln run --cache npm:a/b/c -- cat a/b/c/f; ls a/b"), "1\n");
  EXPECT_THAT(output("touch file; kiln run --cache npm:file/c -- true"), HasSubstr("'file'"));
}

TEST_F(KilnRun, TakesThePlaceOfALinkThatAKilledKilnLeft) {
  EXPECT_EQ(sh("ln -s \"$KILN_MOUNT/leases/npm.999\" place; "
               "kiln run --cache npm:place -- sh -c 'echo 1 > place/f'")
                .status,
            0);
  EXPECT_EQ(output("kiln run --cache npm:place -- kiln run --cache other:place -- true"),
            "kiln: 'place' exists; the cache needs a place where nothing is\n")
      << "whose lease is there";
  EXPECT_EQ(sh("ln -s nowhere dangling; kiln run --cache npm:dangling -- true").status, 1);
  EXPECT_EQ(output("readlink dangling"), "nowhere\n");
}

TEST_F(KilnRun, TakesNoPlaceThatIsTaken) {
  const Ran ran = sh("echo kept > place; kiln run --cache npm:place -- true");
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.output, HasSubstr("exists"));
  EXPECT_EQ(output("cat place"), "kept\n");
  EXPECT_EQ(kiln("run --cache npm -- ./no-such-program").status, 127);
  EXPECT_EQ(kiln("run --cache npm").status, 2);
  EXPECT_EQ(kiln("run --cache ../npm -- true").status, 2);
  EXPECT_EQ(output("kiln ls leases"), "");
}

}  // namespace
}  // namespace kilnfs::testing
