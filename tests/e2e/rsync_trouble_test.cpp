// rsync that is killed while it works, that gets stuck, or that is replaced by something that
// fails: wherever the daemon runs it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/fd.h"
#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// A command that runs rsync. @ stands for the scratch directory.
struct Place {
  const char* name;
  const char* command;
  const char* makes;  // what is to be there when it succeeded, in the mount or by an absolute path
};

void PrintTo(const Place& place, std::ostream* out) {
  *out << place.name;
}

constexpr Place kPlaces[] = {
    {"CopyOfATree", "build x --base b --copy @/src --wait -- true", "results/x/d/f"},
    {"CopyOfAFile", "build x --base b --copy @/src/d/f:e/g --wait -- true", "results/x/e/g"},
    {"CopyWithoutABase", "build x --copy @/src --wait -- true", "results/x/d/f"},
    {"Import", "import x @/src", "results/x/d/f"},
    {"Export", "export b @/out", "@/out/in_b"},
};

constexpr size_t kBuilds = 3;
constexpr size_t kBuildsAndImports = 4;

/// Everything happens in a mount namespace of the test's own, where a script is in rsync's place.
class RsyncTrouble : public MountedStore, public ::testing::WithParamInterface<Place> {
 protected:
  void SetUp() override {
    MountedStore::SetUp();
    outside_.reset(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0) << "these tests need root";
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    std::string rsync = shell("command -v rsync").output;
    rsync.pop_back();
    shell("cp " + rsync + " " + (dir_ / "rsync"));
    writeFile(wrapper(), R"(#!/bin/bash
for to; do :; done
half() { echo half >"$to/half" || echo half >"$to"; touch DIR/began; } 2>/dev/null
case $(cat DIR/how) in
works) exec DIR/rsync "$@" ;;
fails) printf 'one\n\001\377%0100000d\nlast word\n' 0 >&2; exit 23 ;;
silent) exit 7 ;;
dies) half; kill -KILL $$ ;;
stops) half; sleep 1000 & kill -STOP $$ ;;
esac
)");
    shell("sed -i 's#DIR#" + dir_.path() + "#g' " + wrapper() + "; chmod 755 " + wrapper());
    ASSERT_EQ(::mount(wrapper().c_str(), rsync.c_str(), nullptr, MS_BIND, nullptr), 0);
    rsync_ = rsync;
    rsyncIs("works");
    start({"jobs=2"});
    shell("mkdir -p src/d; seq 100 >src/d/f; ln src/d/f src/g", scratch());
    ASSERT_THAT(run("build b --wait -- sh -c 'seq 100 >in_b'").output, HasSubstr("saved"));
  }
  void TearDown() override {
    MountedStore::TearDown();
    ::umount2(rsync_.c_str(), MNT_DETACH);
    EXPECT_EQ(::setns(outside_.get(), CLONE_NEWNS), 0);
  }

  std::string wrapper() const { return dir_ / "wrapper"; }
  void rsyncIs(const std::string& how) const { writeFile(dir_ / "how", how); }
  std::string placed(std::string text) const {
    for (size_t at; (at = text.find('@')) != std::string::npos;) text.replace(at, 1, scratch());
    return text;
  }
  /// Writes a command; the output is the answers, and the status that of the write.
  Ran run(const std::string& command) const {
    writeFile(dir_ / "command", command + "\n");
    return shell("exec 3<>control; cat " + (dir_ / "command") + " >&3; s=$?; cat <&3; exit $s",
                 mnt());
  }
  std::string log() const { return readFile(store() + "/log/x"); }

  /// It failed: nothing is there of it, all else is as it was.
  void leftNothing() const {
    EXPECT_EQ(shell("ls results; ls builds; seq 100 | cmp - results/b/in_b", mnt()).output, "b\n");
  }
  void worksAgain() const {
    rsyncIs("works");
    shell("rm -rf out", scratch());  // what rsync left there is the user's
    const Ran again = run(placed(GetParam().command));
    EXPECT_EQ(again.status, 0) << again.output;
    EXPECT_EQ(shell("seq 100 | cmp - " + placed(GetParam().makes), mnt()).output, "");
  }
  /// Starts the command with an rsync that gets stuck, does `then` when it is, and waits.
  Ran stuck(const std::string& then, const std::string& more = "") const {
    rsyncIs("stops");
    std::string command = placed(GetParam().command);
    if (!more.empty()) command.insert(command.find(" --copy"), more);
    writeFile(dir_ / "command", command + "\n");
    writeFile(dir_ / "script", "cat " + (dir_ / "command") + " >control & w=$!\n" +
                                   "until test -e " + (dir_ / "began") + "; do sleep 0.01; done\n" +
                                   then + "\nwait $w 2>/dev/null; echo status $?\n");
    return shell("bash " + (dir_ / "script"), mnt());
  }
  bool isBuild() const { return std::string(GetParam().command).starts_with("build"); }

  UniqueFd outside_;
  std::string rsync_;
};

TEST_P(RsyncTrouble, OneThatFailsIsQuoted) {
  rsyncIs("fails");
  const Ran ran = run(placed(GetParam().command));
  EXPECT_NE(ran.status, 0);
  EXPECT_THAT(ran.output, AllOf(HasSubstr("\"EIO\""), HasSubstr("exited with status 23")));
  EXPECT_LT(ran.output.size(), 5000U) << "not all of what it said";
  EXPECT_THAT(isBuild() ? log() : ran.output, HasSubstr("last word"));
  leftNothing();
  worksAgain();
}

TEST_P(RsyncTrouble, OneThatFailsWithoutAWord) {
  rsyncIs("silent");
  const Ran ran = run(placed(GetParam().command));
  EXPECT_THAT(ran.output, AllOf(HasSubstr("\"EIO\""), HasSubstr("exited with status 7")));
  leftNothing();
  worksAgain();
}

TEST_P(RsyncTrouble, OneThatIsKilledWhileItWorks) {
  rsyncIs("dies");
  const Ran ran = run(placed(GetParam().command));
  EXPECT_THAT(ran.output, AllOf(HasSubstr("\"EIO\""), HasSubstr("killed by signal 9")));
  leftNothing();
  worksAgain();
}

TEST_P(RsyncTrouble, OneThatCannotBeRun) {
  ASSERT_EQ(::chmod(wrapper().c_str(), 0644), 0);
  const Ran ran = run(placed(GetParam().command));
  EXPECT_NE(ran.status, 0);
  EXPECT_THAT(ran.output, HasSubstr("run rsync: Permission denied"));
  leftNothing();
  ASSERT_EQ(::chmod(wrapper().c_str(), 0755), 0);
  worksAgain();
}

TEST_P(RsyncTrouble, OneThatIsStuckEndsWithItsWriter) {
  EXPECT_THAT(stuck("kill $w").output, HasSubstr("status 143"));
  // The write is over, and what it began ends soon.
  shell("while test -n \"$(ls builds)\"; do sleep 0.01; done", mnt());
  if (isBuild()) {
    EXPECT_THAT(run("wait x").output, HasSubstr("\"state\":\"cancelled\""));
  }
  leftNothing();
  worksAgain();
}

TEST_P(RsyncTrouble, OneThatIsStuckEndsWithTheDaemon) {
  const Ran ran = stuck("kill " + std::to_string(daemon_->pid()));
  EXPECT_THAT(ran.output, Not(HasSubstr("status 0")));
  finish();
  start();
  leftNothing();
  worksAgain();
}

/// What has a name by which it can be cancelled.
class RsyncOfABuildOrImport : public RsyncTrouble {};

TEST_P(RsyncOfABuildOrImport, OneThatIsStuckIsCancelled) {
  EXPECT_THAT(stuck("echo cancel x >control").output, Not(HasSubstr("status 0")));
  EXPECT_THAT(run("wait x").output, HasSubstr("\"state\":\"cancelled\""));
  leftNothing();
  worksAgain();
}

/// What can have a deadline.
class RsyncOfABuild : public RsyncTrouble {};

TEST_P(RsyncOfABuild, OneThatIsStuckEndsAtTheDeadline) {
  EXPECT_THAT(stuck("", " --timeout 1s").output, Not(HasSubstr("status 0")));
  EXPECT_THAT(run("wait x").output, HasSubstr("\"state\":\"timed-out\""));
  EXPECT_THAT(log(), HasSubstr("timed out and was ended"));
  leftNothing();
  worksAgain();
}

std::string nameOf(const ::testing::TestParamInfo<Place>& place) {
  return place.param.name;
}

INSTANTIATE_TEST_SUITE_P(Places, RsyncTrouble, ::testing::ValuesIn(kPlaces), nameOf);
INSTANTIATE_TEST_SUITE_P(Places, RsyncOfABuildOrImport,
                         ::testing::ValuesIn(kPlaces, kPlaces + kBuildsAndImports), nameOf);
INSTANTIATE_TEST_SUITE_P(Places, RsyncOfABuild, ::testing::ValuesIn(kPlaces, kPlaces + kBuilds),
                         nameOf);

}  // namespace
}  // namespace kilnfs::testing
