// Builds at native speed when something goes wrong, or is meant to.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "store/base/fd.h"
#include "tests/support/manifest.h"
#include "tests/support/native_builds.h"

namespace kilnfs::testing {
namespace {

class NativeBuild : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!nativeBuildsPossible()) GTEST_SKIP() << "declared: no overlayfs for the daemon here";
    ASSERT_EQ(::chmod(dir_.path().c_str(), 0755), 0);
    ASSERT_EQ(::mkdir(here().c_str(), 0755), 0);
  }
  std::string here() const { return dir_ / "here"; }
  void start(const std::vector<std::string>& options = {}) {
    builds_ = std::make_unique<BuildStore>(here(), options);
  }
  Ran build(const std::string& id, const std::string& base, const std::string& script) {
    return builds_->build(id, base, script);
  }
  /// Begins a build that waits until its directory holds go.ID.
  void beginWaiting(const std::string& id, const std::string& base,
                    const std::string& before = "") {
    writeFile(dir_ / "wait.sh", before + "\ntouch ready." + id + "; until test -e go." + id +
                                    "; do sleep 0.01; done\n");
    const Ran queued = shell(
        "echo 'build " + id + " --base " + base + " -- bash " + (dir_ / "wait.sh") + "' >control",
        builds_->mnt());
    ASSERT_EQ(queued.status, 0) << queued.output;
    while (!exists(in(id, "ready." + id))) ::poll(nullptr, 0, 5);
  }
  std::string in(const std::string& id, const std::string& path) const {
    return builds_->mnt() + "/builds/" + id + "/" + path;
  }
  std::string result(const std::string& path) const {
    return readFile(builds_->mnt() + "/results/" + path);
  }

  /// Kills the daemon, and waits for the end of the command, which has written its pid.
  void killDuring(const std::string& id) {
    std::ifstream in_(in(id, "pid"));
    pid_t command = 0;
    ASSERT_TRUE(in_ >> command);
    in_.close();
    builds_->kill();
    while (::kill(command, 0) == 0) ::poll(nullptr, 0, 5);
  }
  std::string layers() const {
    return shell("ls | grep ^layer", builds_->store() + "/result-tmp").output;
  }

  TempDir dir_;
  std::unique_ptr<BuildStore> builds_;
};

// ext4 takes 65,000 links to a file. The names that it has in a result are one file all the same.
TEST_F(NativeBuild, NamesOfAFileThatHasAllItsLinksStayTogether) {
  start({"mode=hardlink"});
  ASSERT_EQ(build("base", "", "mkdir a b c; echo l >a/1; ln a/1 b/2; ln a/1 c/3").status, 0);
  const std::string file = builds_->store() + "/result/base/a/1";
  const std::string full = builds_->store() + "/full";
  ASSERT_EQ(::mkdir(full.c_str(), 0755), 0);
  int links = 0;
  while (links < 66000 && ::link(file.c_str(), (full + "/" + std::to_string(links)).c_str()) == 0) {
    ++links;
  }
  const auto areOne = [this](const std::string& id, const std::string& content) {
    EXPECT_EQ(builds_->kiln("complete-deletes").status, 0);
    const std::string in = "cd " + builds_->store() + "/result/" + id + "; ";
    EXPECT_EQ(shell(in + "stat -c %i a/1 b/2 c/3 | sort -u | wc -l").output, "1\n") << id;
    EXPECT_EQ(shell(in + "cat a/1 b/2 c/3").output, content + content + content) << id;
    EXPECT_EQ(shell("stat -c %h " + builds_->mnt() + "/results/" + id + "/b/2").output, "3\n");
  };
  for (const char* free : {"", "0", "1"}) {
    const std::string name = std::string("x") + free;
    if (*free != 0) {
      ASSERT_EQ(::unlink((full + "/" + free).c_str()), 0);
    }
    const Ran linked = build(name, "base", "echo n >a/new; echo n >b/new");
    ASSERT_EQ(linked.status, 0) << linked.output;
    areOne(name, "l\n");
    const Ran changed = build(name + ".changed", "base", "echo m >>a/1; echo n >b/new");
    ASSERT_EQ(changed.status, 0) << changed.output;
    areOne(name + ".changed", "l\nm\n");
    areOne("base", "l\n");
  }
}

TEST_F(NativeBuild, WhoHasAFileOpenCanLookAtItWhateverBecomesOfItsName) {
  start();
  ASSERT_EQ(build("base", "", "echo 1 >f; echo 22 >g").status, 0);
  beginWaiting("x", "base", R"(touch ready.x
    until test -e step; do sleep 0.01; done; rm f; touch done)");
  const UniqueFd gone(::open(in("x", "f").c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd read(::open(in("x", "g").c_str(), O_RDONLY | O_CLOEXEC));
  writeFile(in("x", "step"), "");
  while (!exists(in("x", "done"))) ::poll(nullptr, 0, 5);
  struct stat st = {};
  ASSERT_EQ(::fstat(gone.get(), &st), 0) << std::strerror(errno);
  EXPECT_EQ(st.st_size, 2);
  writeFile(in("x", "go.x"), "");
  ASSERT_EQ(builds_->kiln("wait x").status, 0);
  EXPECT_FALSE(exists(in("x", "g")));
  ASSERT_EQ(::fstat(read.get(), &st), 0) << std::strerror(errno);
  EXPECT_EQ(st.st_size, 3);
}

TEST_F(NativeBuild, WhoLooksThroughTheMountSeesTheSameTreeAtOnce) {
  start();
  ASSERT_EQ(build("base", "", "echo 1 >f; mkdir d; echo 2 >d/g").status, 0);
  beginWaiting("x", "base", R"(touch ready.x
    until test -e step1; do sleep 0.01; done; echo 11 >f; mv d e; mkdir d; touch done1
    until test -e step2; do sleep 0.01; done; rm f; mkdir f; echo longer >>e/g; touch done2)");
  // What was looked at before is looked at anew, and a file that is open shows what is written.
  std::ifstream open(in("x", "d/g"));
  std::string line;
  ASSERT_TRUE(std::getline(open, line));
  EXPECT_EQ(readFile(in("x", "f")), "1\n");
  EXPECT_EQ(entries(in("x", "")), 3U);
  const auto step = [this](const std::string& n) {
    writeFile(in("x", "step" + n), "");
    while (!exists(in("x", "done" + n))) ::poll(nullptr, 0, 5);
  };
  step("1");
  EXPECT_EQ(readFile(in("x", "f")), "11\n");
  EXPECT_EQ(readFile(in("x", "e/g")), "2\n");
  EXPECT_FALSE(exists(in("x", "d/g")));
  EXPECT_EQ(entries(in("x", "d")), 0U);
  step("2");
  EXPECT_EQ(entries(in("x", "f")), 0U);
  EXPECT_EQ(readFile(in("x", "e/g")), "2\nlonger\n");
  // And the command sees what is done through the mount.
  writeFile(in("x", "go.x"), "");
  EXPECT_EQ(builds_->kiln("wait x").status, 0);
  EXPECT_EQ(result("x/e/g"), "2\nlonger\n");
}

// The kernel keeps what was looked at for long; the overlay must not be kept with it.
TEST_F(NativeBuild, ABuildOnOneThatWasLookedAtIsNativeToo) {
  start();
  ASSERT_EQ(build("base", "", "echo 1 >f").status, 0);
  std::string base = "base";
  for (const std::string id : {"x1", "x2", "x3"}) {
    beginWaiting(id, base, "stat -f -c %T . >type");
    EXPECT_EQ(readFile(in(id, "f")), "1\n");
    writeFile(in(id, "go." + id), "");
    ASSERT_EQ(builds_->kiln("wait " + id).status, 0);
    EXPECT_EQ(result(id + "/type"), "overlayfs\n");
    base = id;
  }
}

TEST_F(NativeBuild, ABaseThatOverlaysWouldShowOtherwiseGoesThroughTheMount) {
  start();
  // A result that holds such things can only be made by root, past an overlay.
  ASSERT_EQ(build("device", "", "echo 1 >f; mkdir d; echo 2 >d/g; mknod d/white c 0 0").status, 0);
  ASSERT_EQ(build("attribute", "", "echo 1 >f; setfattr -n trusted.overlay.metacopy f").status, 0);
  ASSERT_EQ(
      build("opaque", "", "mkdir d; echo 1 >d/f; setfattr -n trusted.overlay.opaque -v x d").status,
      0);
  ASSERT_EQ(build("plain", "", "mknod null c 1 3; echo 1 >f").status, 0);
  const char* script = "stat -f -c %T . >type; test ! -e f || cat f >seen; ls -R . >list";
  for (const char* base : {"device", "attribute", "opaque"}) {
    const Ran built = build(std::string("on.") + base, base, script);
    EXPECT_EQ(built.status, 0) << built.output;
    EXPECT_EQ(result(std::string("on.") + base + "/type"), "fuseblk\n") << base;
  }
  EXPECT_NE(result("on.device/list").find("white"), std::string::npos);
  ASSERT_EQ(build("on.plain", "plain", script).status, 0);
  EXPECT_EQ(result("on.plain/type"), "overlayfs\n");
}

// A process outside of the build, and so not ended with it, gets a file of it: what is saved must
// not change under anybody's hands.
TEST_F(NativeBuild, AFileThatIsHandedOutForWritingFailsTheBuild) {
  start();
  ASSERT_EQ(build("base", "", "echo 1 >f").status, 0);
  const std::string socket = dir_ / "s";
  writeFile(dir_ / "take.py", R"(
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1)
c, _ = s.accept(); data, fds, _, _ = socket.recv_fds(c, 1, 1); c.sendall(b'k'); c.recv(1)
sys.stdin.read()
)");
  writeFile(dir_ / "give.py", R"(
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
socket.send_fds(s, [b'x'], [os.open('f', os.O_RDWR if sys.argv[2] == 'w' else os.O_RDONLY)])
s.recv(1)
)");
  for (const std::string how : {"w", "r"}) {
    for (const std::string base : {"base", ""}) {
      ::unlink(socket.c_str());
      const std::string id = "x" + how + base;
      const std::string script = "echo 2 >f; until test -S " + socket +
                                 "; do sleep 0.01; done; python3 " + (dir_ / "give.py") + " " +
                                 socket + " " + how;
      const Ran both =
          shell("mkfifo p." + id + "; python3 take.py " + socket + " <p." + id + " & exec 9>p." +
                    id + "; KILN_MOUNT=" + builds_->mnt() + " " KILNFS_BIN "/kiln build " + id +
                    (base.empty() ? "" : " --base " + base) + " -c '" + script +
                    "'; got=$?; exec 9>&-; wait; exit $got",
                dir_.path());
      EXPECT_EQ(both.status == 0, how == "r") << both.output;
      EXPECT_EQ(exists(builds_->mnt() + "/results/" + id), how == "r");
    }
  }
}

TEST_F(NativeBuild, AKilledSupervisorLeavesNothing) {
  start();
  ASSERT_EQ(build("base", "", "echo 1 >f").status, 0);
  beginWaiting("x", "base", "echo 2 >f; echo $PPID >parent");
  std::ifstream parent(in("x", "parent"));
  pid_t supervisor = 0;
  ASSERT_TRUE(parent >> supervisor);
  parent.close();
  ASSERT_EQ(::kill(supervisor, SIGKILL), 0);
  EXPECT_NE(builds_->kiln("wait x").status, 0);
  EXPECT_FALSE(exists(builds_->mnt() + "/results/x"));
  EXPECT_EQ(build("x", "base", "cat f >g").status, 0);
  EXPECT_EQ(result("x/g"), "1\n");
}

TEST_F(NativeBuild, AKilledDaemonLeavesNoMountAndTheNextOneCleansUp) {
  start();
  ASSERT_EQ(build("base", "", "echo 1 >f; mkdir d").status, 0);
  beginWaiting("x", "base", "echo 2 >f; mv d e; echo $$ >pid");
  ASSERT_NO_FATAL_FAILURE(killDuring("x"));
  EXPECT_GT(entries(here() + "/store/result-tmp"), 0U);
  EXPECT_EQ(mountsBelow(here()), std::vector{here() + "/mnt"}) << "a mount of the build is left";
  start();
  EXPECT_EQ(build("x", "base", "cat f >g; test -d d").status, 0);
  EXPECT_EQ(result("x/g"), "1\n");
}

// overlayfs can be told of so many layers only.
TEST_F(NativeBuild, AChainOfAnyLengthCanBeBuiltBeforeAnyOfItIsPlain) {
  start();
  ASSERT_EQ(
      build("base", "", "mkdir -p d/s e; echo s >d/s/f; echo 0 >d/all; echo 0 >gone.0").status, 0);
  std::string base = "base";
  for (int i = 1; i <= 13; ++i) {
    const std::string id = "x" + std::to_string(i);
    builds_->holdUp(id);
    const std::string n = std::to_string(i);
    const Ran built = build(id, base,
                            "stat -f -c %T .; rm gone.*; mv d t; mv e d; mv t e; echo " + n +
                                " >gone." + n + "; for f in ?/all; do echo " + n + " >>$f; done");
    ASSERT_EQ(built.status, 0) << built.output;
    EXPECT_EQ(built.output.find(i <= 11 ? "overlayfs" : "fuseblk"), 0U) << i << built.output;
    base = id;
  }
  const std::string all = "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n";
  EXPECT_EQ(result("x13/e/all") + result("x13/e/s/f"), all + "s\n");
  EXPECT_EQ(shell("ls", builds_->mnt() + "/results/x13").output, "d\ne\ngone.13\n");
  for (int i = 1; i <= 13; ++i) builds_->letGo("x" + std::to_string(i));
  builds_->settle();
  EXPECT_EQ(readFile(builds_->store() + "/result/x13/e/all"), all);
  EXPECT_EQ(layers(), "");
}

TEST_F(NativeBuild, ABaseThatBecomesPlainMeanwhileIsStillTheSame) {
  start();
  ASSERT_EQ(build("base", "", "mkdir -p d/s; echo 1 >d/f; echo 5 >d/s/g; echo 1 >e").status, 0);
  builds_->holdUp("below");
  ASSERT_EQ(build("below", "base", "mv d D; echo 2 >e; mkdir n; echo 3 >n/own").status, 0);
  beginWaiting("x", "below", "stat -f -c %T . >type; cat e >seen");
  builds_->letGo("below");
  builds_->settle();
  EXPECT_EQ(readFile(builds_->store() + "/result/below/D/f"), "1\n");
  EXPECT_EQ(readFile(in("x", "D/f")) + readFile(in("x", "D/s/g")), "1\n5\n");
  EXPECT_EQ(readFile(in("x", "n/own")), "3\n");
  writeFile(in("x", "D/new"), "4\n");
  writeFile(in("x", "go.x"), "");
  ASSERT_EQ(builds_->kiln("wait x").status, 0);
  EXPECT_EQ(result("x/type") + result("x/seen"), "overlayfs\n2\n");
  EXPECT_EQ(result("x/D/f") + result("x/D/new") + result("x/n/own"), "1\n4\n3\n");
  EXPECT_EQ(shell("ls", builds_->mnt() + "/results/below/D").output, "f\ns\n");
  EXPECT_EQ(builds_->kiln("complete-deletes").status, 0);
  EXPECT_EQ(layers(), "");
}

TEST_F(NativeBuild, ALayerGoesWithItsResult) {
  start();
  ASSERT_EQ(build("base", "", "mkdir -p d/s; echo 1 >d/s/f").status, 0);
  builds_->holdUp("x");
  ASSERT_EQ(build("x", "base", "echo 2 >d/own").status, 0);
  ASSERT_EQ(build("y", "x", "echo 3 >d/own").status, 0);
  EXPECT_EQ(layers(), "layer.1\n");
  const UniqueFd held(::open((builds_->mnt() + "/results/x/d/own").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(held.valid());
  for (const char* id : {"y", "x"}) {
    ASSERT_EQ(builds_->kiln(std::string("delete ") + id).status, 0);
  }
  builds_->letGo("x");
  EXPECT_EQ(builds_->kiln("complete-deletes").status, 0);
  EXPECT_EQ(layers(), "");
  char c = 0;
  EXPECT_EQ(::pread(held.get(), &c, 1, 0), 1);
  EXPECT_EQ(c, '2');
}

TEST_F(NativeBuild, AKilledDaemonsLayersGoAndItsResultsStay) {
  start();
  ASSERT_EQ(build("base", "", "mkdir -p d/s; echo 1 >d/s/f").status, 0);
  builds_->holdUp("below");
  ASSERT_EQ(build("below", "base", "mv d D; echo 2 >e").status, 0);
  beginWaiting("x", "below", "echo $$ >pid");
  EXPECT_EQ(layers(), "layer.1\n");
  ASSERT_NO_FATAL_FAILURE(killDuring("x"));
  start();
  EXPECT_EQ(builds_->kiln("complete-deletes").status, 1) << "still held up";
  EXPECT_EQ(layers(), "");
  // What it lies over is not known any more: through the mount, until it is plain.
  const Ran before = build("x1", "below", "stat -f -c %T .; cat D/s/f e");
  EXPECT_EQ(before.output.substr(0, before.output.find("kiln")), "fuseblk\n1\n2\n");
  builds_->letGo("below");
  builds_->settle();
  const Ran after = build("x2", "below", "stat -f -c %T .; cat D/s/f e");
  EXPECT_EQ(after.output.substr(0, after.output.find("kiln")), "overlayfs\n1\n2\n");
}

TEST_F(NativeBuild, AnOutsidersMountsStayOutside) {
  start();
  ASSERT_EQ(build("base", "", "echo 1 >f").status, 0);
  beginWaiting("x", "base");
  EXPECT_EQ(mountsBelow(here()).size(), 1U) << "only the daemon's own";
  writeFile(in("x", "go.x"), "");
  EXPECT_EQ(builds_->kiln("wait x").status, 0);
}

TEST_F(NativeBuild, UnmountingCancelsIt) {
  start();
  ASSERT_EQ(build("base", "", "echo 1 >f").status, 0);
  beginWaiting("x", "base");
  EXPECT_EQ(builds_->unmount(), 0);
  EXPECT_NE(readFile(builds_->store() + "/log/x").find("cancelled"), std::string::npos);
  EXPECT_EQ(entries(builds_->store() + "/result-tmp"), 0U);
}

}  // namespace
}  // namespace kilnfs::testing
