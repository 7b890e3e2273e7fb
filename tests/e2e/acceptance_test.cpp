// What the product is for, as a user would try it: a store of OBuilder's, a job with a cache, and
// many builds at once.
#include <gtest/gtest.h>

#include "tests/support/mounted_store.h"

namespace kilnfs::testing {
namespace {

class Acceptance : public MountedStore {
 protected:
  std::string sh(const std::string& script) {
    writeFile(scratch() + "/script", script);
    const Ran ran = shell("bash " + scratch() + "/script 2>&1", mnt());
    EXPECT_EQ(ran.status, 0) << ran.output;
    return ran.output;
  }
  std::string sql(const std::string& query) {
    return shell("sqlite3 " + store() + "/state/db/db.sqlite \"" + query + "\"").output;
  }
};

TEST_F(Acceptance, AStoreOfObuildersIsReadBuiltUponAndGivenBack) {
  ASSERT_EQ(
      shell(
          R"~(set -e; mkdir -p store; cd store; mkdir -p result/base/rootfs/bin result-tmp cache/apt cache-tmp state/db
echo tool > result/base/rootfs/bin/tool; echo "the base's log" > result/base/log; echo deb > cache/apt/deb
mkdir -p result/top/rootfs; echo "the top's log" > result/top/log
sqlite3 state/db/db.sqlite "CREATE TABLE builds (id TEXT PRIMARY KEY, created DATETIME NOT NULL,
  used DATETIME NOT NULL, rc INTEGER NOT NULL, parent TEXT,
  FOREIGN KEY (parent) REFERENCES builds (id) ON DELETE RESTRICT);
  CREATE INDEX lru ON builds (rc, used);
  INSERT INTO builds VALUES ('base', '2024-01-02 03:04:05', '2024-01-02 03:04:05', 1, NULL);
  INSERT INTO builds VALUES ('top', '2024-01-02 03:04:06', '2024-01-02 03:04:06', 0, 'base')")~",
          dir_.path())
          .status,
      0);
  start();
  EXPECT_EQ(sh("ls results logs; cat logs/base results/base/rootfs/bin/tool caches/apt/deb"),
            "logs:\nbase\ntop\n\nresults:\nbase\ntop\nthe base's log\ntool\ndeb\n");
  EXPECT_EQ(
      sh("echo \"build next --base base --wait -c 'cat rootfs/bin/tool; echo 2 >rootfs/two'\" "
         "> control; cat logs/next; ls results/next; cat results/next/rootfs/two"),
      "tool\nrootfs\n2\n");
  finish();
  EXPECT_EQ(sql("SELECT id, rc, coalesce(parent, '-') FROM builds ORDER BY id"),
            "base|2|-\nnext|0|base\ntop|0|base\n");
  EXPECT_EQ(sql("SELECT count(*) FROM builds b WHERE rc != (SELECT count(*) FROM builds c WHERE "
                "c.parent = b.id) OR (parent IS NOT NULL AND parent NOT IN (SELECT id FROM "
                "builds)) OR length(created) != 19 OR datetime(created) IS NULL"),
            "0\n");
  EXPECT_EQ(sql("SELECT created FROM builds WHERE id = 'base'"), "2024-01-02 03:04:05\n");
  EXPECT_EQ(sql("PRAGMA integrity_check"), "ok\n");
}

TEST_F(Acceptance, AJobsProcessesShareOneLeaseWhichIsPublishedOnce) {
  start();
  // setsid: a job of its own, as a script is that a shell starts.
  EXPECT_EQ(sh(R"~(setsid --wait sh -c '
  for i in 1 2 3 4 5 6 7 8; do (echo $i > caches/c/$i) & done; wait
  setsid --wait sh -c "cat caches/c/1 > caches/c/copy"; ls leases | wc -l'
setsid --wait sh -c 'cat caches/c/[1-8] caches/c/copy' | tr -d '\n'; echo
timeout 1 cat events | grep -c '"state":"published".*' || true)~"),
            "1\n123456781\n2\n")
      << "one of the lease, one of the cache";
}

TEST_F(Acceptance, AHundredBuildsOfFourStepsShareACache) {
  start({"jobs=10"});
  EXPECT_EQ(sh(R"~(for i in $(seq 100); do
  { echo "build s1-$i --cache shared -c 'echo 1 >steps; echo $i >>shared/all'"
    for step in 2 3; do
      echo "build s$step-$i --base s$((step - 1))-$i --cache shared -c 'echo $step >>steps'"
    done
    echo "build s4-$i --base s3-$i --cache shared --wait -c 'echo 4 >>steps;" \
         "test \"\$(tr -d \"\\n\" <steps)\" = 1234'"
  } > $0.$i; cat $0.$i > control &
done
wait
cat errors; ls results | wc -l; cat results/s4-*/steps | sort | uniq -c | tr -s ' '; ls builds leases)~"),
            "400\n 100 1\n 100 2\n 100 3\n 100 4\nbuilds:\n\nleases:\n");
  finish();
  EXPECT_EQ(sql("SELECT count(*), sum(rc) FROM builds"), "400|300\n");
}

}  // namespace
}  // namespace kilnfs::testing
