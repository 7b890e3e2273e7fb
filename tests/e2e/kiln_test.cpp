// The client against a real daemon: what a person sees on the screen and in $?.
#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>

#include "tests/support/kiln_fixture.h"

namespace kilnfs::testing {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(Kiln, BuildShowsTheLogAndExitsAsTheCommandDid) {
  const Ran good = sh("kiln build a -c 'echo one; echo two > f' 2>/dev/null");
  EXPECT_EQ(good.status, 0);
  EXPECT_EQ(good.output, "one\n");
  EXPECT_EQ(output("cat '" + mnt("results/a/f") + "'"), "two\n");
  const Ran bad = sh("kiln build b -c 'echo trying; exit 42' 2>/dev/null");
  EXPECT_EQ(bad.status, 42);
  EXPECT_THAT(bad.output, StartsWith("trying\n"));
  EXPECT_EQ(kiln("build c -c 'kill -9 $$'").status, 137);
}

TEST_F(Kiln, AnAutomaticIdIsFoundWhileTheBuildRuns) {
  // The build ends only once its log was seen, so this test hangs if the log is not streamed.
  const Ran ran = sh("mkfifo go; kiln build -c 'echo first; cat \"" + scratch() +
                     "/go\"; echo last' 2>/dev/null | while read line; do "
                     "echo \"$line\"; if [ $line = first ]; then echo ended > go; fi; done");
  EXPECT_EQ(ran.output, "first\nended\nlast\n");
}

TEST_F(Kiln, ANamedBuildIsFoundFromAnotherPidNamespaceToo) {
  if (::geteuid() != 0) GTEST_SKIP() << "declared: needs a PID namespace";
  // As above; but who does not see the log is not to wait for ever.
  const Ran ran =
      sh("mkfifo go; timeout -s KILL 20 unshare -pf --kill-child --mount-proc kiln build pidns -c "
         "'echo first; cat \"" +
         scratch() +
         "/go\"; echo last' 2>/dev/null | while read line; do "
         "echo \"$line\"; if [ $line = first ]; then echo ended > go; fi; done");
  EXPECT_EQ(ran.output, "first\nended\nlast\n");
}

TEST_F(Kiln, TheSameAgainIsAnsweredFromTheStore) {
  EXPECT_EQ(kiln("build a -c 'echo log'").status, 0);
  const Ran again = kiln("build a -c 'echo log'");
  EXPECT_EQ(again.status, 0);
  EXPECT_EQ(again.output, "kiln: a: was in the store\n");
  EXPECT_THAT(output("kiln build a --json -c 'echo log' 2>/dev/null"),
              HasSubstr("\"cached\":true"));
}

TEST_F(Kiln, RefusalsSayWhyAndTellUsageFromTheRest) {
  const Ran base = kiln("build x --base none -- true");
  EXPECT_EQ(base.status, 1);
  EXPECT_THAT(base.output, HasSubstr("none"));
  EXPECT_EQ(kiln("build x --no-such-option -- true").status, 2);
  EXPECT_EQ(kiln("wait ../x").status, 2);
  EXPECT_EQ(kiln("frobnicate").status, 2);
  EXPECT_EQ(kiln("--no-such-option ls").status, 2);
  EXPECT_EQ(kiln("ls nothing").status, 2);
  EXPECT_EQ(kiln("log none").status, 1);
  EXPECT_EQ(kiln("lease npm").status, 2);
  EXPECT_EQ(kiln("lease npm --as=ci").status, 0);
  EXPECT_EQ(kiln("follow none").status, 1);
  EXPECT_EQ(kiln("follow a/b").status, 2);
  EXPECT_EQ(kiln("follow -x").status, 2);
  const Ran tooLong = sh("kiln build x -c \"$(head -c 70000 /dev/zero | tr '\\0' x)\"");
  EXPECT_EQ(tooLong.status, 2);
  EXPECT_THAT(tooLong.output, HasSubstr("65536"));
}

TEST_F(Kiln, AnyArgumentSurvives) {
  const Ran ran =
      sh("kiln build q -- printf '%s|' '' \"it's\" '\"' '$HOME `id`' 'a\nb' '\\' '#' 2>/dev/null");
  EXPECT_EQ(ran.output, "|it's|\"|$HOME `id`|a\nb|\\|#|");
}

TEST_F(Kiln, RelativePathsStartWhereKilnWasStarted) {
  EXPECT_EQ(sh("mkdir src && echo data > src/f && kiln build a --copy src:in -- true").status, 0);
  EXPECT_EQ(output("cat '" + mnt("results/a/in/f") + "'"), "data\n");
  EXPECT_EQ(kiln("import b src").status, 0);
  EXPECT_EQ(kiln("export b out").status, 0);
  EXPECT_EQ(output("cat out/f"), "data\n");
  EXPECT_EQ(output("kiln ls"), "a\nb\n");
}

TEST_F(Kiln, RelativePathsStartNowhereWhereTheDirectoryIsGone) {
  EXPECT_EQ(kiln("build e -- true").status, 0);
  for (const char* words :
       {"build g --copy etc/hostname -- ls", "build --detach g --copy etc -- ls", "import i etc",
        "export e tmp/kiln-test-of-a-lost-directory"}) {
    const Ran ran = sh(std::string("mkdir gone; cd gone; rmdir ../gone; kiln ") + words);
    EXPECT_EQ(ran.status, 1) << words;
    EXPECT_THAT(ran.output, HasSubstr("working directory is gone")) << words;
  }
  EXPECT_EQ(sh("mkdir gone; cd gone; rmdir ../gone; kiln build a --copy /dev/null -- true").status,
            0);
  EXPECT_EQ(output("kiln ls"), "a\ne\n");
}

TEST_F(Kiln, AResultIsExportedWholeBeforeItIsPlain) {
  EXPECT_EQ(kiln("build a -c 'mkdir d; echo deep >d/f'").status, 0);
  EXPECT_EQ(sh("kiln complete-deletes").status, 0);
  writeFile(store() + "/result/b", "in the way");
  EXPECT_EQ(kiln("build b --base a -c 'echo top >t'").status, 0);
  EXPECT_EQ(kiln("export b out").status, 0);
  EXPECT_EQ(output("cat out/t out/d/f; stat -c %a out/d"), "top\ndeep\n755\n");
  std::filesystem::remove(store() + "/result/b");
}

TEST_F(Kiln, DetachedBuildsAreWaitedForByName) {
  EXPECT_EQ(output("kiln build --detach a -c 'exit 3'"), "a\n");
  EXPECT_EQ(kiln("wait a").status, 3);
  EXPECT_EQ(output("kiln build --detach b -- true; kiln wait b"), "b\nb: saved\n");
}

TEST_F(Kiln, AWaitHoldsUpNobodyElse) {
  const Ran ran = sh("mkfifo go; kiln build a -c 'cat \"" + scratch() +
                     "/go\"' 2>/dev/null & "
                     "until kiln ls builds | grep -q a; do sleep 0.05; done; "
                     "kiln status --table; echo done > go; wait $!");
  EXPECT_EQ(ran.status, 0);
  EXPECT_THAT(ran.output, HasSubstr("running"));
  EXPECT_THAT(ran.output, EndsWith("done\n"));
}

TEST_F(Kiln, EndingKilnCancelsItsBuild) {
  const Ran ran =
      sh("kiln build a -- sleep 1000 & "
         "until kiln ls builds | grep -q a; do sleep 0.05; done; "
         "kill $!; wait $!; echo $?; kiln wait a");
  EXPECT_THAT(ran.output, HasSubstr("143\n"));
  EXPECT_THAT(ran.output, HasSubstr("cancelled"));
}

TEST_F(Kiln, LogsAndEvents) {
  kiln("build a -c 'echo 1; echo 2'");
  EXPECT_EQ(output("kiln log a"), "1\n2\n");
  EXPECT_EQ(output("kiln log -f a"), "1\n2\n");
  EXPECT_EQ(output("kiln follow a"), "1\n2\n");
  EXPECT_THAT(output("kiln events | tail -n 1"), HasSubstr("\"state\":\"saved\""));
  EXPECT_THAT(output("kiln help control"), HasSubstr("build"));
}

TEST_F(Kiln, FollowExitsAsTheBuildDid) {
  EXPECT_EQ(sh("kiln build --detach a -c 'sleep 0.3; exit 6'; kiln follow a").status, 6);
  EXPECT_EQ(kiln("follow a").status, 6) << "also when it is long over";
  EXPECT_EQ(kiln("log -f a").status, 6);
  EXPECT_EQ(kiln("log a").status, 0) << "which only reads";
  const Ran late = sh("kiln build --detach b --timeout 200ms -- sleep 1000; kiln follow b");
  EXPECT_EQ(late.status, kiln("wait b").status);
  EXPECT_NE(late.status, 0);
  const Ran cancelled = sh(
      "kiln build --detach c -- sleep 1000; (sleep 0.3; kiln cancel c) >/dev/null & kiln follow c");
  EXPECT_EQ(cancelled.status, 143);
  EXPECT_THAT(cancelled.output, HasSubstr("kiln: c cancelled"));
  EXPECT_EQ(sh("kiln build --detach d -c 'sleep 0.3'; kiln log -f d").status, 0);
}

TEST_F(Kiln, FollowingALogOfWhichNothingElseIsKnownSucceeds) {
  kiln("build a -c 'echo tried; exit 6'");
  kiln("build b -c 'echo made'");
  daemon_->end(SIGTERM);
  start();
  EXPECT_THAT(sh("kiln follow a").output, StartsWith("tried\n"));
  EXPECT_EQ(kiln("follow a").status, 0);
  EXPECT_EQ(kiln("follow b").status, 0);
}

TEST_F(Kiln, HelpOfACommandIsPrinted) {
  for (const char* words : {"build --help", "build x -h", "help build"}) {
    const Ran ran = kiln(words);
    EXPECT_EQ(ran.status, 0) << words;
    EXPECT_THAT(ran.output, StartsWith("usage: kiln build ")) << words;
    EXPECT_THAT(ran.output, HasSubstr("--retry")) << words;
  }
  EXPECT_THAT(output("KILN_MOUNT=/none kiln run --help"), StartsWith("usage: kiln run --cache"));
  EXPECT_EQ(output("kiln build x -- printf %s --help 2>/dev/null"), "--help");
  EXPECT_EQ(kiln("frobnicate --help").status, 2);
  // What the store understands is in the pages, option for option.
  const Ran options =
      sh("kiln help control | sed -n '/^build/,$p' | while read -r name rest; do for word in "
         "$rest; do "
         "word=$(echo \"$word\" | sed -n 's/^\\[*\\(--*[a-z-]*[a-z]\\).*/\\1/p'); case $word in "
         "'' | --wait | --sandbox) continue;; esac; "
         "kiln help $name | grep -q -e \"$word\" || echo \"$name: no $word\"; done; done");
  EXPECT_EQ(options.output, "");
}

TEST_F(Kiln, WhoMayNotWriteToControlIsToldWhy) {
  const Ran ran =
      shell("KILN_MOUNT='" + mnt() + "' " KILNFS_BIN "/kiln build a -- true", "/", 65534);
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.output, HasSubstr("control_mode"));
  EXPECT_EQ(shell("mount -o remount,bind,ro '" + mnt() + "'").status, 0);
  EXPECT_THAT(kiln("build a -- true").output, HasSubstr("the mount is read-only"));
}

TEST_F(Kiln, ADaemonThatGoesDuringABuildIsSaidToHaveGoneOnce) {
  const Ran ran =
      sh(": >out; kiln build a -c 'echo began; sleep 1000' >out 2>&1 & "
         "until grep -q began out; do sleep 0.05; done; "
         "kill -9 " +
         std::to_string(daemon_->pid()) + "; wait $!; echo $?; grep -c 'has gone' out");
  EXPECT_EQ(ran.output, "1\n1\n");
  daemon_->end(0);
  shell("umount '" + mnt() + "'");
  daemon_.reset();
}

TEST_F(Kiln, AGoneDaemonIsSaidToBeGone) {
  daemon_->end(SIGKILL);
  const Ran ran = kiln("status");
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.output, HasSubstr("has gone"));
  EXPECT_THAT(ran.output, Not(HasSubstr("not a kilnfs mount")));
  shell("umount '" + mnt() + "'");
  daemon_.reset();
}

TEST_F(Kiln, AControlThatIsNotOursIsLeftAlone) {
  EXPECT_EQ(sh("mkdir debian && echo 'Source: kiln, of some length' > debian/control && "
               "kiln lease debian --as test > lease && "
               "cp debian/control $KILN_MOUNT/leases/debian.*/")
                .status,
            0);
  for (const char* where : {"debian", "$KILN_MOUNT/leases/debian.*"}) {
    const Ran ran = sh(std::string("kiln --mount ") + where + " build a -- true");
    EXPECT_EQ(ran.status, 1) << where;
    EXPECT_THAT(ran.output, HasSubstr("is not a kilnfs mount")) << where;
    EXPECT_EQ(output(std::string("cat ") + where + "/control"), "Source: kiln, of some length\n");
  }
  EXPECT_EQ(sh("ln -s $KILN_MOUNT link; kiln --mount link/. build a -- true").status, 0);
}

TEST_F(Kiln, WithoutAMountItSaysHowToMount) {
  const Ran ran = sh("kiln --mount / ls");
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.output, HasSubstr("kilnfs STORE MNT"));
}

}  // namespace
}  // namespace kilnfs::testing
