// The findings A1 to A9: what OBuilder's store of this layout gets wrong.

#include <signal.h>

#include "tests/posix/posix_test.h"

namespace kilnfs::testing {
namespace {

class ObuilderFindings : public MountedStore {
 protected:
  std::string tell(const std::string& line) {
    return shell("exec 3<>control; echo \"" + line + "\" >&3; cat <&3", mnt()).output;
  }
};

}  // namespace

TEST_F(ObuilderFindings, A1_LeftoversAreRemovedAtStartAndNeverMergedInto) {
  ASSERT_EQ(shell("mkdir -p store/result store/result-tmp/r store/cache store/cache-tmp/0-c "
                  "store/cache-tmp/c.1 store/log && touch store/result-tmp/r/old "
                  "store/cache-tmp/0-c/old store/cache-tmp/c.1/old",
                  dir_.path())
                .status,
            0);
  start();
  tell("complete-deletes");
  EXPECT_EQ(entries(store() + "/result-tmp"), 0u);
  EXPECT_EQ(entries(store() + "/cache-tmp"), 0u);
  tell("build r --wait -- touch new");
  EXPECT_EQ(shell("ls results/r; ls caches/c/", mnt()).output, "new\n");
}

TEST_F(ObuilderFindings, A2_ALosingLeaseIsRemoved) {
  start();
  for (const char* tag : {"1", "2"}) tell(std::string("lease c --as ") + tag);
  ASSERT_EQ(shell("for l in leases/c.*; do echo x > $l/f; done", mnt()).status, 0);
  for (const std::string& lease : {shell("ls leases", mnt()).output}) {
    std::string first = lease.substr(0, lease.find('\n'));
    std::string second = lease.substr(lease.find('\n') + 1);
    second.pop_back();
    EXPECT_NE(tell("release " + first).find("published"), std::string::npos);
    EXPECT_NE(tell("release " + second).find("discarded"), std::string::npos);
  }
  finish();  // looks for what is left
}

TEST_F(ObuilderFindings, A3_ReadersOfACacheNeverMissIt) {
  start();
  ASSERT_EQ(shell("mkdir caches/c/d && echo 0 > caches/c/d/f", mnt()).status, 0);
  const Ran ran = shell(
      "test -d ../store/cache/c || exit 3; "
      "(while test -e go; do cat ../store/cache/c/d/f >/dev/null || echo gap; done) & "
      "for i in 1 2 3 4 5; do setsid -w sh -c \"echo $i > caches/c/d/f\"; done; wait %1 "
      "2>/dev/null",
      mnt());
  EXPECT_EQ(ran.output.find("gap"), std::string::npos) << ran.output;
}

TEST_F(ObuilderFindings, A4_PublishingNeverNests) {
  start();
  tell("build r --wait -- touch mine");
  daemon_->end(SIGTERM);
  // Somebody else puts a result where the next build will publish its own.
  start();
  tell("build s -c 'until test -e go; do sleep 0.01; done; touch mine'");
  ASSERT_EQ(::mkdir((store() + "/result/s").c_str(), 0755), 0);
  ASSERT_EQ(shell("until test -d builds/s; do sleep 0.01; done; : > builds/s/go", mnt()).status, 0);
  tell("wait s");
  EXPECT_EQ(shell("ls -A store/result/s", dir_.path()).output, "");
  EXPECT_EQ(shell("ls -A store/result/r", dir_.path()).output, "mine\n");
}

TEST_F(ObuilderFindings, A5_NothingIsLostOnTheWay) {
  start();
  tell(
      "build a --wait -c 'touch f; setfattr -n user.k -v v f; setfacl -m u:12345:r f; ln f g; "
      "truncate -s 9M s; mknod n b 7 7; cp /bin/true p; setcap cap_net_raw+ep p'");
  tell("build b --base a --wait -- touch other");
  for (const char* id : {"a", "b"}) {
    const Ran ran = shell(
        "getfattr -n user.k --only-values f; getfacl -cE f | grep 12345; stat -c %h f; stat -c %b "
        "s; "
        "stat -c %t n; getcap p",
        mnt("results/" + std::string(id)));
    EXPECT_EQ(ran.output, "vuser:12345:r--\n2\n0\n7\np cap_net_raw=ep\n") << id;
  }
}

TEST_F(ObuilderFindings, A6_SizeAndTimeAreNotBelieved) {
  start({"mode=hardlink"});
  tell("build a --wait -c 'printf AAAA > f; touch -d @1 f'");
  tell("build b --base a --wait -c 'printf BBBB > f; touch -d @1 f'");
  tell("complete-deletes");
  EXPECT_EQ(shell("cat results/a/f results/b/f; touch results", mnt()).output.substr(0, 8),
            "AAAABBBB");
  EXPECT_EQ(shell("cat result/a/f result/b/f", store()).output, "AAAABBBB");
}

TEST_F(ObuilderFindings, A7_NamesCantLeaveTheirDirectory) {
  start();
  for (const char* name : {"../x", ".", "..", "a/b", ".hidden", "a b", ""}) {
    EXPECT_NE(tell(std::string("lease '") + name + "' --as t").find("EINVAL"), std::string::npos)
        << name;
    EXPECT_NE(tell(std::string("build '") + name + "' -- true").find("EINVAL"), std::string::npos)
        << name;
  }
  EXPECT_EQ(shell("ls leases results", mnt()).output, "leases:\n\nresults:\n");
}

TEST_F(ObuilderFindings, A8_LogsLieBesideAndOutliveFailure) {
  start();
  tell("build a --wait -c 'echo said; echo mine > log'");
  tell("build b --base a --wait -c 'echo failing; exit 3'");
  EXPECT_EQ(shell("cat results/a/log logs/a; head -n1 logs/b; ls results", mnt()).output,
            "mine\nsaid\nfailing\na\n");
}

TEST_F(ObuilderFindings, A9_GenerationsPersistAndBasesInUseStay) {
  start();
  tell("lease c --as t");
  ASSERT_EQ(shell("cd leases/c.1 && echo x > f", mnt()).status, 0);
  const std::string published = tell("release c.1");
  EXPECT_NE(published.find("published"), std::string::npos) << published;
  finish();
  start();
  const std::string again = tell("lease c --as t");
  const auto generation = [](const std::string& text) {
    const size_t at = text.find("\"generation\":");
    return at == std::string::npos ? "" : text.substr(at, text.find_first_of(",}", at) - at);
  };
  EXPECT_EQ(generation(again), generation(published));
  EXPECT_NE(generation(again), "");
  tell("build base --wait -- touch f");
  tell("build over --base base -c 'until test -e go; do sleep 0.01; done'");
  EXPECT_EQ(
      shell("until test -d builds/over; do sleep 0.01; done; rmdir results/base", mnt()).status, 1);
  EXPECT_EQ(shell(": > builds/over/go; ls results/base", mnt()).output, "f\n");
  tell("wait over");
}

}  // namespace kilnfs::testing
