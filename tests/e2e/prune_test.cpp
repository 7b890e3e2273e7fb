// Pinning, pruning and verifying, through the mount and by kiln, on a real store.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "store/base/fd.h"
#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class Prune : public MountedStore {
 protected:
  Ran sh(const std::string& line) const {
    return shell(
        "PATH=" KILNFS_BIN ":$PATH KILN_MOUNT='" + mnt() + "'; export PATH KILN_MOUNT; " + line,
        scratch());
  }
  std::string output(const std::string& line) const { return sh(line).output; }
  /// Results a, b, ... of 100,000 bytes each, last used in this order, long ago.
  void make(const std::string& names) {
    for (const char name : names) {
      const Ran ran =
          sh(std::string("kiln build ") + name + " -c 'head -c 100000 /dev/zero >f' 2>/dev/null");
      ASSERT_EQ(ran.status, 0) << ran.output;
    }
    for (size_t i = 0; i < names.size(); ++i) setUsed(names[i], 1000 - static_cast<int>(i));
  }
  void setUsed(char name, int minutesAgo) {
    const Ran ran = sh("sqlite3 -cmd '.timeout 5000' '" + store() +
                       "/state/db/db.sqlite' \"UPDATE builds SET used = datetime('now', '-" +
                       std::to_string(minutesAgo) + " minutes') WHERE id = '" + name + "'\"");
    ASSERT_EQ(ran.status, 0) << ran.output;
  }
  /// What became of each result: "a deleted".
  std::string prune(const std::string& options) {
    const Ran ran = sh("kiln --json prune " + options);
    EXPECT_EQ(ran.status, 0) << ran.output;
    std::string out;
    const json answer = json::parse(ran.output, nullptr, false);
    for (const json& each : answer["results"]) {
      out += (out.empty() ? "" : ", ") + each["id"].get<std::string>() + " " +
             each["action"].get<std::string>();
    }
    return out;
  }
};

TEST_F(Prune, TheLeastRecentlyUsedGoFirstAndPinnedOnesStay) {
  start();
  make("abcd");
  EXPECT_EQ(sh("kiln pin a").status, 0);
  EXPECT_THAT(output("kiln status --table"), HasSubstr("pins: 1\n  a\n"));
  EXPECT_EQ(prune("--max 2 --dry-run"), "a kept, b would-delete, c would-delete, d kept");
  EXPECT_EQ(output("kiln ls"), "a\nb\nc\nd\n");
  EXPECT_EQ(prune("--max 2"), "a kept, b deleted, c deleted, d kept");
  EXPECT_EQ(output("kiln ls"), "a\nd\n");
  EXPECT_EQ(output("test -e '" + mnt("results/b") + "' || echo gone"), "gone\n");
  EXPECT_THAT(output("rmdir '" + mnt("results/a") + "'"), HasSubstr("busy"));
  EXPECT_THAT(output("kiln delete a"), HasSubstr("a is pinned: unpin it first"));
  EXPECT_EQ(sh("echo 'unpin a\nprune --max 0' > '" + mnt("control") + "'").status, 0);
  EXPECT_EQ(output("kiln ls"), "");
}

TEST_F(Prune, ReadingAResultIsUse) {
  start();
  make("abc");
  EXPECT_EQ(output("wc -c < '" + mnt("results/a/f") + "'"), "100000\n");
  EXPECT_EQ(prune("--max 1"), "a kept, b deleted, c deleted");
}

TEST_F(Prune, AResultThatIsOpenStays) {
  start();
  make("ab");
  {
    const UniqueFd file(::open(mnt("results/a/f").c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(file.valid());
    EXPECT_EQ(prune("--max 0"), "a kept, b deleted");
    EXPECT_THAT(output("kiln prune --max 0"), HasSubstr("a file in it is open\n1 kept\n"));
  }
  // The kernel tells of a close some time after it.
  for (int i = 0; i < 1000 && output("kiln ls") != ""; ++i) sh("kiln prune --max 0");
  EXPECT_EQ(output("kiln ls"), "");
}

TEST_F(Prune, BasesOfQueuedBuildsStay) {
  start({"jobs=1"});
  make("ab");
  const Ran ran = sh("mkfifo go; kiln build --detach x -c 'cat \"" + scratch() +
                     "/go\"' >/dev/null; kiln build --detach y --base a -- true; "
                     "kiln prune --max 0; echo > go; kiln wait x y");
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_THAT(ran.output, HasSubstr("y, which is to be built, has it as base"));
  EXPECT_EQ(output("kiln ls"), "a\nx\ny\n");
}

TEST_F(Prune, BySizeAndWithoutLimits) {
  start();
  make("abc");
  EXPECT_EQ(prune("--max-used 250K"), "a deleted, b kept, c kept");
  EXPECT_EQ(prune("--min-free 0%"), "b kept, c kept");
  EXPECT_EQ(prune("--before 999m"), "b deleted, c kept");
  const Ran none = sh("kiln prune");
  EXPECT_EQ(none.status, 2);
  EXPECT_THAT(none.output, HasSubstr("no limit"));
}

TEST_F(Prune, TheDaemonPrunesByItself) {
  start({"max_used=250K"});
  make("ab");
  ASSERT_EQ(sh("kiln build c -c 'head -c 100000 /dev/zero >f'").status, 0);
  // Before the next build begins, if not before.
  ASSERT_EQ(sh("kiln build d -- true").status, 0);
  EXPECT_EQ(output("kiln ls"), "b\nc\nd\n");
  EXPECT_EQ(sh("kiln pin b; kiln pin c; kiln build e -c 'head -c 100000 /dev/zero >f'").status, 0);
  sh("kiln pin e");
  const Ran full = sh("kiln build g -- true");
  EXPECT_NE(full.status, 0);
  EXPECT_THAT(full.output, HasSubstr("no space: results use "));
  EXPECT_THAT(full.output, HasSubstr("more than max_used=250.0 KiB"));
  EXPECT_THAT(output("kiln log g"), HasSubstr("no space"));
}

TEST_F(Prune, WhileABuildRuns) {
  start({"max_used=250K", "jobs=2"});
  make("ab");
  // c is saved, and too much, while the other build runs. (To look into the mount would be use.)
  const Ran ran =
      sh("mkfifo go; kiln build --detach x -c 'cat \"" + scratch() +
         "/go\"' >/dev/null; kiln build c -c 'head -c 100000 /dev/zero >f' 2>/dev/null; "
         "while test -e '" +
         store() + "/result/a'; do sleep 0.1; done; echo > go; kiln wait x");
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_EQ(output("kiln ls"), "b\nc\nx\n");
}

TEST_F(Prune, WrongOptionsOfTheDaemonAreRefused) {
  for (const char* option : {"max_used=lots", "max_used=", "min_free=200%", "min_free=1.5G"}) {
    const Ran ran = sh("kilnfs -o " + std::string(option) + " '" + store() + "' '" + mnt() + "'");
    EXPECT_EQ(ran.status, 2) << option;
    EXPECT_THAT(ran.output, HasSubstr("option m")) << option;
  }
  start();
}

TEST_F(Prune, VerifyFindsDamageAndRepairs) {
  start();
  make("ab");
  EXPECT_EQ(sh("kiln build c --base a -c 'echo more >g' 2>/dev/null").status, 0);
  ASSERT_EQ(sh("kiln complete-deletes").status, 0);
  const Ran good = sh("kiln verify");
  EXPECT_EQ(good.status, 0) << good.output;
  EXPECT_THAT(good.output, HasSubstr("3 ok\n"));
  sh("printf x | dd of='" + store() + "/result/b/f' bs=1 seek=5000 conv=notrunc 2>/dev/null");
  const Ran bad = sh("kiln verify");
  EXPECT_EQ(bad.status, 1);
  EXPECT_THAT(bad.output, HasSubstr("'f' has other content"));
  EXPECT_THAT(bad.output, HasSubstr("1 differs, 2 ok\n"));
  EXPECT_THAT(bad.output, HasSubstr("kiln: 1 of 3 results are not what was saved"));
  EXPECT_NE(sh("echo 'verify b' > '" + mnt("control") + "'").status, 0) << "EIO, for scripts";
  EXPECT_EQ(sh("echo 'verify a c' > '" + mnt("control") + "'").status, 0);
  const Ran repaired = sh("kiln verify --repair");
  EXPECT_EQ(repaired.status, 0) << repaired.output;
  EXPECT_THAT(repaired.output, HasSubstr("set aside as state/bad/b"));
  EXPECT_EQ(output("kiln ls"), "a\nc\n");
  EXPECT_EQ(output("test -e '" + mnt("results/b") + "' || echo gone"), "gone\n");
  EXPECT_EQ(sh("kiln build b -c 'echo again >f'").status, 0);
  EXPECT_EQ(output("cat '" + mnt("results/b/f") + "'"), "again\n");
  EXPECT_EQ(sh("kiln verify x").status, 1);
}

TEST_F(Prune, VerifyHoldsUpNobodyAndCanBeInterrupted) {
  start();
  ASSERT_EQ(sh("kiln build a -c 'truncate -s 200G f' 2>/dev/null").status, 0);
  // It is still being read when the signal comes: 200 GB take minutes.
  const Ran ran =
      sh("kiln verify a & pid=$!; kiln status --table >/dev/null && echo status; "
         "kiln build b -- true 2>/dev/null && echo built; kill $pid; wait $pid; "
         "echo $?");
  EXPECT_THAT(ran.output, HasSubstr("status\n"));
  EXPECT_THAT(ran.output, HasSubstr("built\n"));
  EXPECT_THAT(ran.output, HasSubstr("143\n"));
  sh("kiln delete a");
}

}  // namespace
}  // namespace kilnfs::testing
