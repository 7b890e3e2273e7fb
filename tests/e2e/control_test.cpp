// Builds through the control file of a real mount, by shell redirections alone.
#include <gtest/gtest.h>

#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

class ControlFile : public MountedStore {
 protected:
  /// Runs a bash script in the mount.
  std::string bash(const std::string& script, unsigned uid = 0) {
    writeFile(dir_ / "script", script);
    return shell("bash " + (dir_ / "script"), mnt(), uid).output;
  }
};

TEST_F(ControlFile, AShellWritesCommandsAndReadsAnswers) {
  start();
  EXPECT_EQ(bash(R"(exec 3<>control
echo "build a --wait -c 'echo hi >f; echo out'" >&3 && read -r line <&3 && echo "$line"
printf 'build b --base a -c "cat f"\nwait b\n' >&3 && cat <&3
echo "wait nothing" >&3 2>/dev/null || read -r line <&3; echo "$line"
cat results/a/f logs/b
)"),
            R"({"cached":false,"exit":0,"id":"a","ok":true,"state":"saved"}
{"cached":false,"id":"b","ok":true,"state":"queued"}
{"cached":false,"exit":0,"id":"b","ok":true,"state":"saved"}
{"errno":"ENOENT","id":"nothing","message":"nothing: no such build or result","ok":false}
hi
hi
)");
}

TEST_F(ControlFile, ShellsWriteLongCommandsInBlocks) {
  start();
  EXPECT_EQ(bash(R"_(echo "build r --wait -- echo $(seq -s ' ' 1 12000)" > control && wc -w < logs/r
for i in 10 1000 1001; do echo "build v$i --wait -- true"; done | cat > control
{ yes '#' | head -c 4086; echo 'delete v1000'; echo 'delete v1001'; } | awk '{print}' > control
ls results
)_"),
            "12000\nr\nv10\n");
}

TEST_F(ControlFile, ACommandOfSeveralLinesByHereDocument) {
  start();
  EXPECT_EQ(bash(R"(cat >control <<'EOF_'
build a --wait -c '
  echo "first line"
  echo second
'
EOF_
cat logs/a
)"),
            "first line\nsecond\n");
}

TEST_F(ControlFile, FollowStreamsTheLogToItsEnd) {
  start();
  EXPECT_EQ(bash(R"(exec 3<>control
echo "build a -c 'echo 1; until test -e go; do sleep 0.01; done; echo 2'" >&3; read -r line <&3
echo "follow a" >&3
{ while ! test -d builds/a; do sleep 0.01; done; : >builds/a/go; } &
cat <&3; wait; ls -A results/a
)"),
            "1\n2\ngo\n");
}

TEST_F(ControlFile, ACacheIsSharedWithWhoFollowsItsLink) {
  start();
  const std::string script = R"(exec 3<>control
echo "build a --cache npm:deep/npm --wait -c 'echo 1 >deep/npm/x; cat \$KILN_MOUNT/caches/npm/x; ls \$KILN_MOUNT/leases'" >&3
read -r line <&3; cat logs/a
)";
  const std::string out = bash(script);
  EXPECT_EQ(out.substr(0, 2), "1\n") << out;
  EXPECT_EQ(out.find("npm.2"), std::string::npos) << out;
  EXPECT_EQ(bash("cat caches/npm/x; find results/a -mindepth 1 -printf '%P\\n'"), "1\ndeep\n");
}

// What a build asks of the mount must not wait behind those who wait for the build.
TEST_F(ControlFile, WhoWaitsTakesNoWorkerFromWhoIsWaitedFor) {
  start({"workers=1"});
  EXPECT_EQ(
      bash(R"(timeout 60 sh -c "echo \"build a --cache c:d --wait -c 'echo 1 > d/f'\" > control"
cat caches/c/f
)"),
      "1\n");
}

TEST_F(ControlFile, CommandsRunAsWhoWroteThem) {
  start({"control_mode=0666"});
  ::mkdir((dir_ / "src").c_str(), 0755);
  ::chmod(dir_.path().c_str(), 0755);
  writeFile(dir_ / "src/open", "o");
  writeFile(dir_ / "src/secret", "s");
  ::chmod((dir_ / "src/secret").c_str(), 0600);
  const auto ask = [this](const std::string& command) {
    return shell("exec 3<>control; echo " + command + " >&3; cat <&3", mnt(), 65534).output;
  };
  ask("build a --copy " + (dir_ / "src/open") + " --wait -- id -u");
  EXPECT_EQ(readFile(store() + "/log/a"), "65534\n");
  EXPECT_EQ(shell("stat -c %u results/a results/a/open", mnt()).output, "65534\n65534\n");
  EXPECT_NE(ask("build --copy " + (dir_ / "src/secret") + " --wait -- true").find("EACCES"),
            std::string::npos);
  EXPECT_NE(ask("build b --copy " + (dir_ / "src") + " --wait -- true").find("\"EIO\""),
            std::string::npos);
  EXPECT_NE(ask("build b --user 0 --wait -- id").find("EPERM"), std::string::npos);
  EXPECT_NE(ask("import c " + (dir_ / "src")).find("EIO"), std::string::npos);
  EXPECT_EQ(shell("ls results", mnt()).output, "a\n");
}

TEST_F(ControlFile, AKilledWriterEndsItsBuild) {
  start();
  const std::string out =
      bash(R"(echo "build a --wait -c 'setsid sleep 1000 & sleep 1000'" >control &
until test -d builds/a; do sleep 0.01; done
kill $!; wait $!
exec 3<>control; echo "wait a" >&3; cat <&3; cat logs/a
)");
  EXPECT_NE(out.find("\"state\":\"cancelled\""), std::string::npos) << out;
  EXPECT_NE(out.find("\nkilnfs: the build was cancelled\n"), std::string::npos) << out;
}

TEST_F(ControlFile, ImportAndExportByUsers) {
  start({"control_mode=0666"});
  const std::string in = scratch() + "/in";
  const auto as = [this](unsigned uid, const std::string& line) {
    return shell(line, mnt(), uid).output;
  };
  ::mkdir(scratch().c_str(), 0777);
  ::chmod(scratch().c_str(), 0777);
  ::chmod(dir_.path().c_str(), 0755);
  as(65534, "mkdir -p " + in + "/d; echo 1 >" + in + "/d/f; ln " + in + "/d/f " + in + "/g");
  for (const unsigned uid : {0U, 65534U}) {
    const std::string id = "i" + std::to_string(uid);
    as(uid, "echo import " + id + " " + in + " >control");
    EXPECT_EQ(as(uid, "rsync -naHAXic " + in + "/ results/" + id + "/"), "");
    as(uid, "echo export " + id + " " + scratch() + "/out" + id + " >control");
    EXPECT_EQ(as(uid, "rsync -naHAXic --delete " + in + "/ " + scratch() + "/out" + id + "/"), "");
  }
}

// What is below results/ the daemon reads in the store, which is closed to all but its own user.
TEST_F(ControlFile, AnyUserCopiesFromResults) {
  start({"control_mode=0666"});
  const auto as = [this](unsigned uid, const std::string& line) {
    return shell(line, mnt(), uid).output;
  };
  as(0,
     "echo \"build base --wait -c 'mkdir d e; echo deep >d/f; mkdir -m 700 e/closed'\" >control");
  as(0, "echo complete-deletes >control");
  writeFile(store() + "/result/x", "in the way of being made plain");
  as(0, "echo \"build x --base base --wait -c 'echo top >t'\" >control");
  const std::string build = "exec 3<>control; echo \"build --copy " + mnt("results/");
  const std::string rest = ":in --wait -c 'cat in/d/f in/t 2>&1'\" >&3; cat <&3";
  for (const char* id : {"base", "x"}) {
    for (const unsigned uid : {0U, 65534U}) {
      if (uid != 0 && std::string(id) == "x") std::filesystem::remove(store() + "/result/x");
      const std::string answer = as(uid, build + id + "/d" + rest);
      EXPECT_EQ(answer.find("EACCES"), std::string::npos) << id << ": " << answer;
    }
  }
  EXPECT_NE(as(65534, build + "base/e/closed" + rest).find("EACCES"), std::string::npos);
}

TEST_F(ControlFile, ManyBuildsShareACache) {
  start({"jobs=4"});
  EXPECT_EQ(bash(R"(for i in $(seq 12); do
  { echo "build a$i --cache log -c 'echo \$KILN_BUILD_ID >>log/all'"
    for step in b c; do
      echo "build $step$i --base $(echo $step | tr bc ab)$i --cache log -c 'echo $step >>steps'"
    done
    echo "build d$i --base c$i --wait -c 'test \"\$(cat steps | tr -d \"\\n\")\" = bc'"
  } | { mapfile -t lines; printf '%s\n' "${lines[@]}" | cat >control; } &
done
wait
ls results | wc -l; cat errors
)"),
            "48\n");
}

}  // namespace
}  // namespace kilnfs::testing
