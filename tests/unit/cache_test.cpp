// The contract of store/store.h for caches: the generation rule.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <thread>

#include "store/store.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using testing::entries;
using testing::exists;
using testing::readFile;
using testing::TempDir;
using testing::writeFile;
using Outcome = Release::Outcome;

class CacheTest : public ::testing::TestWithParam<Mode> {
 protected:
  CacheTest() {
    auto made = Store::create(dir_ / "store", {GetParam(), "", true});
    store_ = std::move(*made);
  }
  ~CacheTest() override {
    EXPECT_TRUE(store_->completeDeletes());
    EXPECT_EQ(entries(dir_ / "store/result-tmp"), 0U) << "nothing is left behind";
    EXPECT_EQ(entries(dir_ / "store/cache-tmp"), 0U);
  }

  CacheLease lease(User user = {}) {
    auto got = store_->cache(user, name_);
    EXPECT_TRUE(got) << got.error().message;
    return std::move(*got);
  }
  static void change(CacheLease& lease, const std::string& content) {
    ASSERT_TRUE(lease.workspace->beginChange());
    writeFile(lease.workspace->path() + "/f", content);
  }
  Release release(CacheLease& lease, bool discard = false, const std::string& who = "me") {
    auto done = store_->release(lease, discard, who);
    EXPECT_TRUE(done) << done.error().message;
    return *done;
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
  const CacheName name_ = *CacheName::parse("npm");
};

TEST_P(CacheTest, AnUnknownCacheIsCreatedEmptyAndOwnedByTheCaller) {
  EXPECT_FALSE(store_->hasCache(name_));
  CacheLease l = lease({12345, 54321});
  EXPECT_TRUE(store_->hasCache(name_));
  EXPECT_EQ(l.generation, 0U);
  EXPECT_EQ(entries(l.workspace->path()), 0U);
  struct stat st = {};
  ASSERT_EQ(::stat(l.workspace->path().c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 12345U);
  EXPECT_EQ(st.st_gid, 54321U);
  EXPECT_EQ(release(l).outcome, Outcome::unchanged);
}

TEST_P(CacheTest, AChangedLeaseBecomesTheNewLatest) {
  CacheLease l = lease();
  change(l, "one");
  const Release r = release(l);
  EXPECT_EQ(r.outcome, Outcome::published);
  EXPECT_EQ(r.generation, 1U);
  EXPECT_EQ(readFile(dir_ / "store/cache/npm/f"), "one");
  CacheLease next = lease({7, 7});
  EXPECT_EQ(next.generation, 1U);
  EXPECT_EQ(readFile(next.workspace->path() + "/f"), "one");
  struct stat st = {};
  ASSERT_EQ(::stat(next.workspace->path().c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 7U) << "the root belongs to who leases it now";
  release(next);
}

TEST_P(CacheTest, TheLoserIsDiscardedAndToldWhoWon) {
  CacheLease a = lease();
  CacheLease b = lease();
  change(a, "a");
  change(b, "b");
  EXPECT_EQ(release(b, false, "job 2").outcome, Outcome::published);
  const Release lost = release(a, false, "job 1");
  EXPECT_EQ(lost.outcome, Outcome::discarded);
  EXPECT_EQ(lost.generation, 1U);
  EXPECT_EQ(lost.winner, "job 2");
  EXPECT_EQ(readFile(dir_ / "store/cache/npm/f"), "b");
}

TEST_P(CacheTest, AnUnchangedLeaseChangesNothingEvenWhenTheCacheMovedOn) {
  CacheLease a = lease();
  CacheLease b = lease();
  change(b, "b");
  release(b);
  EXPECT_EQ(release(a).outcome, Outcome::unchanged);
  EXPECT_EQ(readFile(dir_ / "store/cache/npm/f"), "b");
}

TEST_P(CacheTest, DiscardIsDiscard) {
  CacheLease l = lease();
  change(l, "x");
  EXPECT_EQ(release(l, true).outcome, Outcome::discarded);
  EXPECT_FALSE(exists(dir_ / "store/cache/npm/f"));
}

TEST_P(CacheTest, IsBusyWhileAFileIsOpenForWriting) {
  CacheLease l = lease();
  change(l, "x");
  l.workspace->opened(true);
  EXPECT_EQ(store_->release(l, false, "me").error().code, EBUSY);
  EXPECT_TRUE(l.workspace->beginChange()) << "the lease goes on";
  l.workspace->closed(true);
  l.workspace->opened(false);
  EXPECT_EQ(release(l).outcome, Outcome::published);
  EXPECT_FALSE(l.workspace->beginChange()) << "nothing changes after the release";
}

TEST_P(CacheTest, ALeaseDoesNotSeeLaterGenerations) {
  CacheLease w = lease();
  change(w, "one");
  release(w);
  CacheLease reader = lease();
  CacheLease second = lease();
  change(second, "two");
  release(second);
  EXPECT_EQ(readFile(reader.workspace->path() + "/f"), "one");
  release(reader);
}

TEST_P(CacheTest, DeletingIsBusyWhileLeasedUnlessForced) {
  EXPECT_EQ(store_->deleteCache(name_, false).error().code, ENOENT);
  CacheLease l = lease();
  change(l, "x");
  EXPECT_EQ(store_->deleteCache(name_, false).error().code, EBUSY);
  ASSERT_TRUE(store_->deleteCache(name_, true));
  EXPECT_FALSE(store_->hasCache(name_));
  EXPECT_EQ(release(l).outcome, Outcome::discarded) << "leases in flight are doomed";
  EXPECT_FALSE(store_->hasCache(name_));
  CacheLease again = lease();
  EXPECT_EQ(entries(again.workspace->path()), 0U);
  release(again);
  ASSERT_TRUE(store_->deleteCache(name_, false));
}

TEST_P(CacheTest, GenerationsGoOnAfterARestart) {
  for (const char* content : {"1", "2", "3"}) {
    CacheLease l = lease();
    change(l, content);
    release(l);
  }
  store_.reset();
  store_ = std::move(*Store::create(dir_ / "store", {{}, "", true}));
  const auto caches = store_->caches();
  ASSERT_TRUE(caches);
  ASSERT_EQ(caches->size(), 1U);
  EXPECT_EQ(caches->front().generation, 3U);
}

TEST_P(CacheTest, EveryPublishIsAccountedForAsWonOrDiscarded) {
  std::atomic<int> won{0};
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      for (int n = 0; n < 3; ++n) {
        CacheLease l = lease();
        change(l, std::to_string(i));
        (release(l).outcome == Outcome::published ? won : lost) += 1;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(won + lost, 18);
  EXPECT_EQ(store_->caches()->front().generation, static_cast<uint64_t>(won));
}

INSTANTIATE_TEST_SUITE_P(Modes, CacheTest, ::testing::Values(Mode::copy, Mode::hardlink),
                         [](const auto& test) { return modeName(test.param); });

}  // namespace
}  // namespace kilnfs
