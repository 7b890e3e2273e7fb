// Pinning and pruning: what goes, in which order, and what must stay.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fcntl.h>

#include <thread>

#include "store/prune_plan.h"
#include "store/tree/tree.h"
#include "tests/support/meanwhile.h"
#include "tests/support/names.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using testing::exists;
using ::testing::HasSubstr;
using testing::readFile;
using testing::TempDir;
using testing::writeFile;

// -- the choice by itself

using Plan = Pruner::Plan;
using Action = Pruned::Action;

Plan::Result one(const std::string& id, int64_t used, uint64_t bytes = 10) {
  return {id, std::nullopt, used, {bytes, 1}, {}};
}

Plan::Result on(const std::string& parent, Plan::Result result) {
  result.parent = parent;
  return result;
}

Plan::Result keeping(const std::string& why, Plan::Result result) {
  result.keep = why;
  return result;
}

/// The ids in the order in which they go, at time 1000 with 100 of 1000 bytes free.
std::string order(const std::vector<Plan::Result>& results, const PruneLimits& limits) {
  const Space space{1000, 100, 1000, 900};
  Plan plan(results, limits, space, 1000);
  std::string out;
  while (const auto* result = plan.next()) {
    out += result->id;
    plan.gone(*result, Action::deleted);
  }
  return out;
}

PruneLimits before(int seconds) {
  PruneLimits limits;
  limits.before = std::chrono::seconds(seconds);
  return limits;
}
PruneLimits maxUsed(uint64_t bytes) {
  PruneLimits limits;
  limits.maxUsed = bytes;
  return limits;
}
PruneLimits maxCount(uint64_t count) {
  PruneLimits limits;
  limits.maxCount = count;
  return limits;
}
PruneLimits minFree(Portion portion) {
  PruneLimits limits;
  limits.minFree = portion;
  return limits;
}

TEST(PrunePlan, TheLeastRecentlyUsedGoFirst) {
  const std::vector<Plan::Result> abc = {one("a", 300), one("b", 100), one("c", 200)};
  EXPECT_EQ(order(abc, maxCount(0)), "bca");
  EXPECT_EQ(order(abc, maxCount(2)), "b");
  EXPECT_EQ(order(abc, maxCount(3)), "");
}

TEST(PrunePlan, ByAge) {
  const std::vector<Plan::Result> abc = {one("a", 300), one("b", 100), one("c", 200)};
  EXPECT_EQ(order(abc, before(800)), "bc") << "what is exactly as old goes";
  EXPECT_EQ(order(abc, before(801)), "b");
  EXPECT_EQ(order(abc, before(1000)), "");
}

TEST(PrunePlan, ByTheSpaceThatResultsUse) {
  const std::vector<Plan::Result> abc = {one("a", 3, 30), one("b", 1, 10), one("c", 2, 20)};
  EXPECT_EQ(order(abc, maxUsed(60)), "");
  EXPECT_EQ(order(abc, maxUsed(59)), "b");
  EXPECT_EQ(order(abc, maxUsed(49)), "bc");
  EXPECT_EQ(order(abc, maxUsed(0)), "bca");
}

TEST(PrunePlan, ByFreeSpaceCountsWhatIsFreedOnTheWay) {
  const std::vector<Plan::Result> abc = {one("a", 3, 30), one("b", 1, 10), one("c", 2, 20)};
  EXPECT_EQ(order(abc, minFree(uint64_t{100})), "");
  EXPECT_EQ(order(abc, minFree(uint64_t{110})), "b");
  EXPECT_EQ(order(abc, minFree(uint64_t{111})), "bc");
  EXPECT_EQ(order(abc, minFree(10.0)), "");
  EXPECT_EQ(order(abc, minFree(13.0)), "bc");
}

TEST(PrunePlan, EachLimitByItself) {
  PruneLimits limits = before(900);
  limits.maxCount = 1;
  EXPECT_EQ(order({one("a", 300), one("b", 100), one("c", 200)}, limits), "bc");
  limits.maxCount = 10;
  EXPECT_EQ(order({one("a", 300), one("b", 100), one("c", 200)}, limits), "b");
}

TEST(PrunePlan, ABaseComesAfterWhatWasBuiltOnIt) {
  const std::vector<Plan::Result> chain = {one("a", 1), on("a", one("b", 5)), on("b", one("c", 9)),
                                           one("z", 7)};
  EXPECT_EQ(order(chain, maxCount(0)), "zcba") << "z is older than c, the only other leaf";
  EXPECT_EQ(order(chain, maxCount(3)), "z");
  EXPECT_EQ(order(chain, maxCount(1)), "zcb");
}

TEST(PrunePlan, WhatMustStayKeepsItsBases) {
  const std::vector<Plan::Result> chain = {one("a", 1), on("a", one("b", 2)),
                                           on("b", keeping("it is pinned", one("c", 3))),
                                           on("a", one("d", 4))};
  EXPECT_EQ(order(chain, maxCount(0)), "d");
  EXPECT_EQ(order(chain, before(1)), "d");
}

TEST(PrunePlan, OneObjectForEachWithTheReason) {
  const std::vector<Plan::Result> results = {
      one("a", 100), on("a", keeping("it is pinned", one("b", 2))), one("c", 500), one("d", 600)};
  Plan plan(results, before(450), {}, 1000);
  const auto* first = plan.next();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->id, "c");
  plan.stays(*first, "it was opened meanwhile");
  EXPECT_EQ(plan.next(), nullptr);
  const auto outcome = plan.outcome();
  ASSERT_EQ(outcome.size(), 4U);
  EXPECT_EQ(outcome[0].why, "b was built on it");
  EXPECT_EQ(outcome[1].why, "it is pinned");
  EXPECT_EQ(outcome[2].why, "it was opened meanwhile");
  EXPECT_EQ(outcome[3].why, "last used 6 min ago, within the limits");
  for (const Pruned& each : outcome) EXPECT_EQ(each.action, Action::kept) << each.id;
}

// -- on a store

using testing::id;

class PruneTest : public ::testing::TestWithParam<Mode> {
 protected:
  PruneTest() { open({}); }

  void open(const PruneLimits& limits) {
    store_.reset();
    auto made =
        Store::create(dir_ / "store",
                      {.mode = GetParam(), .mount = "", .plainWorkspaces = true, .limits = limits});
    ASSERT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
  }
  void make(const std::string& name, const std::optional<std::string>& base = {},
            size_t size = 100000) {
    Interrupt interrupt;
    auto done = store_->build(id(name), base ? std::optional(id(*base)) : std::nullopt, User{},
                              interrupt, [&](const std::shared_ptr<Workspace>& tmp) -> Status {
                                writeFile(tmp->path() + "/" + name, std::string(size, 'x'));
                                return {};
                              });
    ASSERT_TRUE(done) << done.error().message;
  }
  /// Results and their last use, in seconds before now.
  void setUsed(const std::string& name, int64_t ago) {
    SQLite::Database db(dir_ / "store/state/db/db.sqlite", SQLite::OPEN_READWRITE, 5000);
    SQLite::Statement set(
        db, "UPDATE builds SET used = datetime('now', '-' || ? || ' seconds') WHERE id = ?");
    set.bind(1, ago);
    set.bind(2, name);
    ASSERT_EQ(set.exec(), 1);
  }
  std::map<std::string, Pruned> prune(const PruneLimits& limits, bool dryRun = false) {
    Interrupt interrupt;
    auto pruned = store_->prune({limits, dryRun}, interrupt);
    EXPECT_TRUE(pruned) << pruned.error().message;
    std::map<std::string, Pruned> out;
    for (const Pruned& each : *pruned) out.emplace(each.id, each);
    return out;
  }
  bool has(const std::string& name) const { return store_->hasResult(id(name)); }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_P(PruneTest, APinnedResultIsNeitherDeletedNorPruned) {
  make("a");
  make("b", "a");
  EXPECT_EQ(store_->setPinned(id("x"), true).error().code, ENOENT);
  EXPECT_EQ(store_->setPinned(id("x"), false).error().code, ENOENT);
  ASSERT_TRUE(store_->setPinned(id("b"), true));
  ASSERT_TRUE(store_->setPinned(id("b"), true)) << "twice is no error";
  open({});
  EXPECT_EQ(store_->pins()->size(), 1U) << "it outlasts the daemon";
  for (const bool recursive : {false, true}) {
    const auto done = store_->remove(id(recursive ? "a" : "b"), recursive);
    EXPECT_EQ(done.error().code, EBUSY);
    EXPECT_THAT(done.error().message, HasSubstr("b is pinned: unpin it first"));
  }
  auto pruned = prune(maxCount(0));
  EXPECT_EQ(pruned.at("b").action, Action::kept);
  EXPECT_EQ(pruned.at("b").why, "it is pinned");
  EXPECT_EQ(pruned.at("a").why, "b was built on it");
  EXPECT_TRUE(has("a") && has("b"));
  ASSERT_TRUE(store_->setPinned(id("b"), false));
  ASSERT_TRUE(store_->remove(id("a"), true));
}

TEST_P(PruneTest, DeletesWithRowLogAndManifest) {
  make("a");
  make("b", "a");
  make("c");
  setUsed("a", 500);
  setUsed("b", 400);
  setUsed("c", 10);
  ASSERT_TRUE(store_->createLog(id("a")));
  auto pruned = prune(before(300));
  EXPECT_EQ(pruned.at("a").action, Action::deleted);
  EXPECT_EQ(pruned.at("a").why, "not used for 8 min");
  EXPECT_EQ(pruned.at("b").action, Action::deleted);
  EXPECT_EQ(pruned.at("c").action, Action::kept);
  EXPECT_FALSE(has("a") || has("b"));
  EXPECT_EQ(store_->info(id("a")).error().code, ENOENT);
  EXPECT_FALSE(store_->logFile(id("a")));
  Interrupt interrupt;
  ASSERT_TRUE(store_->completeRecords(interrupt));
  EXPECT_FALSE(exists(dir_ / "store/state/manifest/a"));
  EXPECT_TRUE(exists(dir_ / "store/state/manifest/c"));
}

TEST_P(PruneTest, ADryRunSaysTheSameAndDoesNothing) {
  make("a");
  make("b", "a");
  make("c");
  setUsed("a", 500);
  setUsed("b", 400);
  const auto would = prune(maxCount(1), true);
  EXPECT_TRUE(has("a") && has("b") && has("c"));
  EXPECT_EQ(would.at("a").action, Action::wouldDelete);
  EXPECT_EQ(would.at("b").action, Action::wouldDelete);
  EXPECT_EQ(would.at("c").action, Action::kept);
  const auto done = prune(maxCount(1));
  for (const auto& [name, each] : done) EXPECT_EQ(each.why, would.at(name).why);
  EXPECT_FALSE(has("a") || has("b"));
}

TEST_P(PruneTest, SizesAreWhatIsFreed) {
  make("a", {}, 1000000);
  make("b", "a", 500000);
  const auto pruned = prune(maxUsed(1), true);
  const auto near = [](uint64_t bytes, uint64_t wanted) {
    return bytes >= wanted && bytes < wanted + 65536;
  };
  EXPECT_TRUE(near(pruned.at("a").bytes, 1000000)) << pruned.at("a").bytes;
  const uint64_t whole = GetParam() == Mode::copy ? 1500000 : 500000;
  EXPECT_TRUE(near(pruned.at("b").bytes, whole)) << pruned.at("b").bytes;
  const auto total = store_->usage();
  ASSERT_TRUE(total);
  EXPECT_EQ(total->bytes, pruned.at("a").bytes + pruned.at("b").bytes);
  // Enough is enough: the older one may stay.
  make("c", {}, 1000000);
  setUsed("c", 100);
  const auto fewer = prune(maxUsed(total->bytes + 65536));
  EXPECT_EQ(fewer.at("c").action, Action::deleted);
  EXPECT_EQ(fewer.at("b").action, Action::kept);
  EXPECT_EQ(store_->usage()->bytes, total->bytes);
}

TEST_P(PruneTest, WhatIsOpenStaysAndIsInUse) {
  make("a");
  make("b");
  setUsed("a", 1000);
  setUsed("b", 500);
  {
    const auto tree = Tree::create(*store_->result(id("a")), 1);
    const auto root = tree->root();
    auto entry = tree->lookup(*root->inode, "a");
    ASSERT_TRUE(entry);
    const auto file = tree->open(*entry->inode, O_RDONLY, false);
    ASSERT_TRUE(file);
    const auto pruned = prune(maxCount(0));
    EXPECT_EQ(pruned.at("a").action, Action::kept);
    EXPECT_EQ(pruned.at("a").why, "a file in it is open");
    EXPECT_EQ(pruned.at("b").action, Action::deleted);
  }
  const auto pruned = prune(before(900));
  EXPECT_EQ(pruned.at("a").action, Action::kept) << "it was used just now: " << pruned.at("a").why;
  EXPECT_EQ(prune(maxCount(0)).at("a").action, Action::deleted);
}

TEST_P(PruneTest, TheBaseOfARunningBuildStays) {
  make("a");
  Interrupt interrupt;
  const auto done = store_->build(
      id("b"), id("a"), User{}, interrupt, [&](const std::shared_ptr<Workspace>&) -> Status {
        const auto pruned = prune(maxCount(0));
        EXPECT_EQ(pruned.at("a").action, Action::kept);
        EXPECT_EQ(pruned.at("a").why, "a running build uses it as its base");
        return {};
      });
  ASSERT_TRUE(done);
}

TEST_P(PruneTest, WhatIsHeldStays) {
  make("a");
  auto held = store_->hold(id("a"), "b is queued");
  auto too = store_->hold(id("a"), "c is queued");
  EXPECT_EQ(prune(maxCount(0)).at("a").why, "b is queued");
  held.reset();
  EXPECT_EQ(prune(maxCount(0)).at("a").why, "c is queued");
  EXPECT_TRUE(has("a"));
  too.reset();
  EXPECT_EQ(prune(maxCount(0)).at("a").action, Action::deleted);
}

// Measuring and deleting others may take minutes, in which builds are queued.
TEST_P(PruneTest, SoDoesWhatIsHeldOnlySinceItWasChosen) {
  make("a");
  Hold held;
  const testing::Meanwhile queue("prune.chosen",
                                 [&] { held = store_->hold(id("a"), "b is queued"); });
  const auto pruned = prune(maxCount(0));
  EXPECT_EQ(pruned.at("a").action, Action::kept);
  EXPECT_EQ(pruned.at("a").why, "b is queued");
  EXPECT_TRUE(has("a"));
}

TEST_P(PruneTest, WhatIsGoingCantBeHeld) {
  make("a");
  Hold held;
  bool tried = false;
  const int subscription = store_->events().subscribe([&](const auto&) {
    tried = true;
    held = store_->hold(id("a"), "b is queued");
  });
  EXPECT_EQ(prune(maxCount(0)).at("a").action, Action::deleted);
  EXPECT_TRUE(tried);
  EXPECT_EQ(held, nullptr);
  store_->events().unsubscribe(subscription);
  EXPECT_NE(store_->hold(id("a"), "it is being built"), nullptr);
}

TEST_P(PruneTest, WithoutLimitsThoseOfTheStore) {
  Interrupt interrupt;
  EXPECT_EQ(store_->prune({}, interrupt).error().code, EINVAL);
  EXPECT_TRUE(store_->makeRoom(interrupt));
  open(maxUsed(300000));
  for (const char* name : {"a", "b", "c"}) make(name, {}, 140000);
  setUsed("b", 100);
  EXPECT_EQ(prune({}).at("b").action, Action::deleted);
  EXPECT_TRUE(has("a") && has("c"));
}

TEST_P(PruneTest, MakingRoom) {
  open(maxUsed(300000));
  Interrupt interrupt;
  make("a", {}, 200000);
  ASSERT_TRUE(store_->makeRoom(interrupt));
  EXPECT_TRUE(has("a"));
  make("b", {}, 200000);
  setUsed("a", 100);
  ASSERT_TRUE(store_->makeRoom(interrupt));
  EXPECT_FALSE(has("a"));
  ASSERT_TRUE(store_->setPinned(id("b"), true));
  make("c", {}, 200000);
  ASSERT_TRUE(store_->setPinned(id("c"), true));
  const auto none = store_->makeRoom(interrupt);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ENOSPC);
  EXPECT_THAT(none.error().message, HasSubstr("more than max_used=293.0 KiB"));
  open(minFree(100.0));
  const auto never = store_->makeRoom(interrupt);
  EXPECT_EQ(never.error().code, ENOSPC);
  EXPECT_THAT(never.error().message, HasSubstr("less than min_free=100%"));
}

INSTANTIATE_TEST_SUITE_P(Modes, PruneTest, ::testing::Values(Mode::copy, Mode::hardlink),
                         [](const auto& mode) { return modeName(mode.param); });

}  // namespace
}  // namespace kilnfs
