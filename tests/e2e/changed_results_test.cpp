// A result's directory that somebody changes behind the daemon's back: what is read is what is
// there or an error, the daemon goes on, verify tells, and --repair sets the result aside.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>

#include "store/base/fd.h"
#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

/// A shell script that is run in the store's directory result/, and what verify says of it.
struct Change {
  const char* name;
  const char* script;
  const char* told;
};

void PrintTo(const Change& change, std::ostream* out) {
  *out << change.name;
}

constexpr Change kChanges[] = {
    {"Content", "printf X | dd of=x/d/f bs=1 seek=3 conv=notrunc", "'d/f' has other content"},
    {"Truncated", "truncate -s 10 x/d/f", "'d/f'"},
    {"Grown", "seq 100000 >>x/d/f", "'d/f'"},
    {"FileRemoved", "rm x/d/f", "'d/f'"},
    {"FileAdded", "echo 1 >x/d/more", "'d/more'"},
    {"Mode", "chmod 0000 x/d/f", "'d/f'"},
    {"ModeOfADirectory", "chmod 0700 x/d", "'d'"},
    {"Owner", "chown 12:34 x/d/f", "'d/f'"},
    {"Attribute", "setfattr -n user.a -v 1 x/d/f", "'d/f'"},
    {"LinkTarget", "ln -sfn /etc x/l", "'l'"},
    {"DirectoryRemoved", "rm -r x/d", "'d'"},
    {"DirectoryEmptied", "rm -r x/d/*", "'d/f'"},
    {"DirectoryMoved", "mv x/d x/e", "'d'"},
    {"FilesExchanged", "mv x/d/f t; mv x/d/g x/d/f; mv t x/d/g", "'d/f'"},
    {"DirectoryForAFile", "rm x/d/f; mkdir -p x/d/f/f/f", "'d/f'"},
    {"FileForADirectory", "rm -r x/d; echo 1 >x/d", "'d'"},
    {"LinkForADirectory", "rm -r x/d; mkdir OUT; cp /etc/passwd OUT/f; ln -s OUT x/d", "'d'"},
    {"LinkForAFile", "ln -sf /etc/passwd x/d/f", "'d/f'"},
    {"PipeForAFile", "rm x/d/f; mkfifo x/d/f", "'d/f'"},
    {"DeviceForAFile", "rm x/d/f; mknod x/d/f c 1 5", "'d/f'"},
    {"AllRemoved", "rm -r x/*", "'d'"},
    {"Emptied", "rm -r x; mkdir x", "'d'"},
    {"Gone", "rm -r x", "gone"},
    {"FileForAll", "rm -r x; echo 1 >x", "gone"},
    {"LinkForAll", "mv x OUT; ln -s OUT x", "gone"},
};

class ChangedResult : public MountedStore, public ::testing::WithParamInterface<Change> {
 protected:
  void begin(const std::string& mode) {
    start({mode, "no_overlay", "jobs=2"});
    make("base", "seq 10 >kept; mkdir k; seq 20 >k/k");
    makeIt();
    make("other", "seq 30 >o");
    ASSERT_EQ(ask("complete-deletes").status, 0);
    ASSERT_EQ(ask("verify").status, 0) << "all is recorded";
  }
  Ran ask(const std::string& command) const {
    writeFile(dir_ / "command", command + "\n");
    return shell("exec 3<>control; cat " + (dir_ / "command") + " >&3 2>&-; s=$?; cat <&3; exit $s",
                 mnt());
  }
  void make(const std::string& id, const std::string& script) const {
    const Ran made = ask("build " + id + " --wait -c '" + script + "'");
    ASSERT_EQ(made.status, 0) << made.output;
  }
  void makeIt() const {
    make("x --base base", "mkdir d; seq 1000 >d/f; seq 5 >d/g; ln -s d/f l; echo 1 >>kept");
  }
  /// All that can be read is; the bound is for a daemon that hangs.
  Ran readAll() const {
    return shell(
        "timeout -k 1 60 find x -printf '%p %y %s\\n' -type f -exec cat {} + 2>&1 >/dev/null",
        mnt("results"));
  }
  void behindItsBack() const {
    std::string script = GetParam().script;
    for (size_t at; (at = script.find("OUT")) != std::string::npos;) {
      script.replace(at, 3, scratch() + "/o");
    }
    const Ran done = shell("(" + script + ") 2>&1", store() + "/result");
    ASSERT_EQ(done.status, 0) << done.output;
  }
  void serves() const {
    EXPECT_EQ(ask("status").status, 0);
    EXPECT_EQ(shell("seq 30 | cmp - o", mnt("results/other")).output, "");
    EXPECT_EQ(shell("seq 10 | cmp - kept; seq 20 | cmp - k/k", mnt("results/base")).output, "");
  }
  /// What is built on it fails with a word, or is what the command made of what was there.
  void buildsOnIt() const {
    const Ran ran =
        ask("build y --base x --wait -c 'test -p d/f || cat d/f >/dev/null; test -p d/f || echo 2 "
            ">>d/f; echo 3 >>d/g; "
            "mkdir n; mv d n; echo 4 >kept'");
    EXPECT_THAT(ran.output, AnyOf(HasSubstr("\"state\":\"saved\""), HasSubstr("\"message\":")));
    if (ran.status == 0) {
      EXPECT_EQ(readFile(mnt("results/y/kept")), "4\n");
    }
    ask("delete y");
    serves();
  }
  void isToldAndRepaired() const {
    const std::string told = GetParam().told;
    const Ran found = ask("verify");
    EXPECT_NE(found.status, 0);
    EXPECT_THAT(found.output, HasSubstr(told));
    const Ran repaired = ask("verify --repair");
    EXPECT_THAT(repaired.output, HasSubstr("\"repaired\":true"));
    EXPECT_EQ(ask("verify").status, 0);
    EXPECT_FALSE(exists(mnt("results/x/d/g"))) << "it was set aside";
    shell("rm -rf result/x", store());  // what is no directory is not verify's to remove
    makeIt();
    EXPECT_EQ(shell("seq 1000 | cmp - d/f; cat l | wc -l", mnt("results/x")).output, "1000\n");
  }
};

TEST_P(ChangedResult, ThatNobodyHasLookedAt) {
  begin("mode=copy");
  behindItsBack();
  const Ran read = readAll();
  EXPECT_NE(read.status, 124) << "it hangs: " << read.output;
  serves();
  buildsOnIt();
  isToldAndRepaired();
}

TEST_P(ChangedResult, ThatTheKernelKnowsAndSomebodyHasOpen) {
  begin("mode=hardlink");
  EXPECT_EQ(readAll().output, "");
  UniqueFd file(::open(mnt("results/x/d/f").c_str(), O_RDONLY | O_CLOEXEC));
  UniqueFd directory(::open(mnt("results/x/d").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_TRUE(file.valid() && directory.valid());
  behindItsBack();
  char buffer[100];
  EXPECT_GE(::pread(file.get(), buffer, sizeof buffer, 0), 0) << "what is open can be read";
  const Ran read = readAll();
  EXPECT_NE(read.status, 124) << "it hangs: " << read.output;
  serves();
  buildsOnIt();
  file.reset();
  directory.reset();
  isToldAndRepaired();
}

using ResultInTheWay = MountedStore;

TEST_F(ResultInTheWay, AFileWhereAResultIsToBeFailsTheBuild) {
  start({"mode=copy"});
  writeFile(store() + "/result/x", "somebody else's");
  const std::string build = "exec 3<>control; echo 'build x --wait -c true' >&3; cat <&3";
  const Ran failed = shell(build, mnt());
  EXPECT_THAT(failed.output, HasSubstr("result/x is in the way: it is not a directory"));
  EXPECT_EQ(readFile(store() + "/result/x"), "somebody else's");
  EXPECT_THAT(readFile(store() + "/log/x"), HasSubstr("in the way"));
  std::filesystem::remove(store() + "/result/x");
  EXPECT_THAT(shell(build, mnt()).output, HasSubstr("\"state\":\"saved\""));
  EXPECT_TRUE(exists(mnt("results/x")));
}

INSTANTIATE_TEST_SUITE_P(Changes, ChangedResult, ::testing::ValuesIn(kChanges),
                         [](const auto& change) { return std::string(change.param.name); });

}  // namespace
}  // namespace kilnfs::testing
