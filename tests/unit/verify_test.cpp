// Results that are not what was recorded of them any more.
#include <SQLiteCpp/SQLiteCpp.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "store/store.h"
#include "tests/support/names.h"
#include "tests/support/sanitized.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using testing::entries;
using testing::exists;
using ::testing::HasSubstr;
using testing::readFile;
using testing::TempDir;
using testing::writeFile;

using Action = Verified::Action;

using testing::id;

class VerifyTest : public ::testing::TestWithParam<Mode> {
 protected:
  VerifyTest() { open(); }

  void open() {
    store_.reset();
    auto made = Store::create(dir_ / "store", {GetParam(), "", true});
    ASSERT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
  }
  void make(const std::string& name, const std::optional<std::string>& base = {}) {
    Interrupt interrupt;
    auto done = store_->build(id(name), base ? std::optional(id(*base)) : std::nullopt, User{},
                              interrupt, [&](const std::shared_ptr<Workspace>& tmp) -> Status {
                                writeFile(tmp->path() + "/" + name, "content of " + name);
                                return {};
                              });
    ASSERT_TRUE(done) << done.error().message;
    recorded();
  }
  void recorded() {
    Interrupt interrupt;
    ASSERT_TRUE(store_->completeRecords(interrupt));
  }
  std::map<std::string, Verified> verify(const std::vector<Id>& ids = {}, bool repair = false) {
    Interrupt interrupt;
    auto verified = store_->verify(ids, repair, interrupt);
    EXPECT_TRUE(verified) << verified.error().message;
    std::map<std::string, Verified> out;
    for (const Verified& each : *verified) out.emplace(each.id, each);
    return out;
  }
  std::string path(const std::string& below) const { return dir_ / ("store/" + below); }
  bool has(const std::string& name) const { return store_->hasResult(id(name)); }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_P(VerifyTest, WhatWasBuiltIsRecordedAndWhole) {
  make("a");
  make("b", "a");
  EXPECT_TRUE(exists(path("state/manifest/a")) && exists(path("state/manifest/b")));
  const auto found = verify();
  ASSERT_EQ(found.size(), 2U);
  for (const auto& [name, each] : found) {
    EXPECT_EQ(each.action, Action::ok) << name << ": " << each.why;
    EXPECT_THAT(each.why, HasSubstr("as it was recorded at 20"));
  }
  EXPECT_EQ(verify({id("a")}).size(), 1U);
  Interrupt interrupt;
  EXPECT_EQ(store_->verify({id("a"), id("x")}, false, interrupt).error().code, ENOENT);
}

TEST_P(VerifyTest, ADamagedResultIsFoundAndSetAside) {
  make("a");
  make("b", "a");
  writeFile(path("result/b/b"), "CONTENT of b");
  auto found = verify();
  EXPECT_EQ(found.at("a").action, Action::ok) << found.at("a").why;
  EXPECT_EQ(found.at("b").action, Action::differs);
  EXPECT_THAT(found.at("b").why, HasSubstr("'b' has other content"));
  EXPECT_TRUE(has("b")) << "only told";
  found = verify({}, true);
  EXPECT_TRUE(found.at("b").repaired);
  EXPECT_THAT(found.at("b").why, HasSubstr("set aside as state/bad/b"));
  EXPECT_FALSE(has("b"));
  EXPECT_EQ(store_->info(id("b")).error().code, ENOENT);
  EXPECT_EQ(readFile(path("state/bad/b/b")), "CONTENT of b");
  EXPECT_EQ(store_->info(id("a"))->children, 0);
  make("b", "a");
  EXPECT_EQ(verify().at("b").action, Action::ok);
  writeFile(path("result/b/b"), "content OF b");
  EXPECT_THAT(verify({}, true).at("b").why, HasSubstr("set aside as state/bad/b.1"));
}

// What says nothing of the result: a repair must not take it away for that.
TEST_P(VerifyTest, NoResultIsSetAsideForALackOfDescriptors) {
  if (testing::kSanitizerNeedsDescriptors) GTEST_SKIP() << "declared: leaves no descriptor free";
  make("a");
  struct rlimit limit;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const int used = ::dup(0);
  ::close(used);
  size_t unreadable = 0;
  for (int free = 0; free < 12; ++free) {
    const struct rlimit few = {static_cast<rlim_t>(used + free), limit.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
    Interrupt interrupt;
    const auto found = store_->verify({id("a")}, true, interrupt);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    ASSERT_TRUE(has("a")) << free << " free: " << (found ? found->at(0).why : "");
    if (!found) continue;
    EXPECT_FALSE(found->at(0).repaired);
    unreadable += found->at(0).action == Action::unreadable ? 1 : 0;
  }
  EXPECT_GT(unreadable, 1U);
  EXPECT_EQ(verify().at("a").action, Action::ok);
}

TEST_P(VerifyTest, WhatWasBuiltOnADamagedResultIsLookedAtToo) {
  make("a");
  make("b", "a");
  writeFile(path("result/a/a"), "CONTENT OF A");
  const auto found = verify({id("a")}, true);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_TRUE(found.at("a").repaired);
  EXPECT_THAT(found.at("a").why, HasSubstr("what was built on it stays, if it is whole itself: b"));
  EXPECT_FALSE(has("a"));
  if (GetParam() == Mode::copy) {
    EXPECT_EQ(found.at("b").action, Action::ok) << found.at("b").why;
    EXPECT_FALSE(store_->info(id("b"))->parent) << "it stands by itself now";
  } else {
    EXPECT_EQ(found.at("b").action, Action::differs) << "they share the damaged file";
    EXPECT_FALSE(has("b"));
  }
}

TEST_P(VerifyTest, WithoutARecordOneIsMade) {
  make("a");
  ASSERT_EQ(::unlink(path("state/manifest/a").c_str()), 0);
  auto found = verify();
  EXPECT_EQ(found.at("a").action, Action::recorded);
  EXPECT_EQ(found.at("a").why, "there is nothing to compare with: recorded now");
  EXPECT_EQ(verify().at("a").action, Action::ok);
  writeFile(path("state/manifest/a"), "garbage");
  EXPECT_EQ(verify().at("a").action, Action::recorded);
  EXPECT_EQ(verify().at("a").action, Action::ok);
}

TEST_P(VerifyTest, AResultOfObuildersIsRecordedWhenItIsVerified) {
  store_.reset();
  ASSERT_EQ(::mkdir(path("result/o").c_str(), 0755), 0);
  writeFile(path("result/o/log"), "log");
  open();
  recorded();
  EXPECT_FALSE(exists(path("state/manifest/o"))) << "not before somebody asks";
  EXPECT_EQ(verify().at("o").action, Action::recorded);
  EXPECT_EQ(verify().at("o").action, Action::ok);
}

TEST_P(VerifyTest, AResultThatIsGoneFromDisk) {
  make("a");
  make("b", "a");
  std::filesystem::remove_all(path("result/a"));
  auto found = verify();
  EXPECT_EQ(found.at("a").action, Action::missing);
  EXPECT_EQ(found.at("a").why, "its directory is gone");
  EXPECT_EQ(found.at("b").action, Action::ok);
  found = verify({id("a")}, true);
  EXPECT_TRUE(found.at("a").repaired);
  EXPECT_EQ(verify().size(), 1U);
  EXPECT_FALSE(exists(path("state/manifest/a")));
  make("a");
  EXPECT_EQ(verify().at("a").action, Action::ok);
}

TEST_P(VerifyTest, WhatIsBeingSavedIsNotMissing) {
  make("a");
  std::filesystem::remove_all(path("result/a"));  // now it has a row and no directory, as then
  Interrupt interrupt;
  const auto done = store_->build(id("a"), {}, User{}, interrupt,
                                  [&](const std::shared_ptr<Workspace>&) -> Status {
                                    EXPECT_EQ(verify({}, true).at("a").action, Action::ok);
                                    EXPECT_TRUE(store_->info(id("a")));
                                    return {};
                                  });
  EXPECT_TRUE(done) << done.error().message;
}

TEST_P(VerifyTest, TheBaseOfARunningBuildIsNotSetAside) {
  make("a");
  writeFile(path("result/a/a"), "damaged");
  Interrupt interrupt;
  const auto done = store_->build(
      id("b"), id("a"), User{}, interrupt, [&](const std::shared_ptr<Workspace>&) -> Status {
        const auto found = verify({}, true);
        EXPECT_EQ(found.at("a").action, Action::differs);
        EXPECT_FALSE(found.at("a").repaired);
        EXPECT_THAT(found.at("a").why,
                    HasSubstr("not set aside: a running build uses it as its base"));
        return {};
      });
  ASSERT_TRUE(done);
  EXPECT_TRUE(has("a"));
}

TEST_P(VerifyTest, APinOutlastsARepair) {
  make("a");
  ASSERT_TRUE(store_->setPinned(id("a"), true));
  writeFile(path("result/a/a"), "damaged");
  EXPECT_TRUE(verify({}, true).at("a").repaired);
  EXPECT_EQ(store_->pins()->size(), 1U);
  make("a");
  EXPECT_EQ(store_->remove(id("a"), false).error().code, EBUSY);
  writeFile(path("result/a/a"), "damaged");
  EXPECT_TRUE(verify({}, true).at("a").repaired);
  EXPECT_TRUE(store_->setPinned(id("a"), false)) << "also without its result";
}

TEST_P(VerifyTest, TheNextStartRecordsWhatWasNotRecorded) {
  make("a");
  ASSERT_EQ(::unlink(path("state/manifest/a").c_str()), 0);
  writeFile(path("state/manifest/gone"), "of a result that is gone");
  writeFile(path("state/manifest/.7"), "half written");
  open();
  recorded();
  EXPECT_TRUE(exists(path("state/manifest/a")));
  EXPECT_EQ(entries(path("state/manifest")), 1U);
}

TEST_P(VerifyTest, AResultThatWasMadeAnewBehindOurBackIsNotDamaged) {
  make("a");
  // As OBuilder would in its turn.
  {
    SQLite::Database db(path("state/db/db.sqlite"), SQLite::OPEN_READWRITE, 5000);
    db.exec("UPDATE builds SET created = datetime('now', '-1 day') WHERE id = 'a'");
  }
  writeFile(path("result/a/a"), "made anew");
  // The directory's own change has to be later than the record, to the second.
  const auto later = [&] {
    struct stat made = {};
    struct stat recorded = {};
    ::stat(path("result/a").c_str(), &made);
    ::stat(path("state/manifest/a").c_str(), &recorded);
    return made.st_ctime > recorded.st_mtime + 1;
  };
  while (!later()) ASSERT_EQ(::chmod(path("result/a").c_str(), 0755), 0);
  EXPECT_EQ(verify().at("a").action, Action::recorded) << verify().at("a").why;
  EXPECT_EQ(verify().at("a").action, Action::ok);
}

INSTANTIATE_TEST_SUITE_P(Modes, VerifyTest, ::testing::Values(Mode::copy, Mode::hardlink),
                         [](const auto& mode) { return modeName(mode.param); });

}  // namespace
}  // namespace kilnfs
