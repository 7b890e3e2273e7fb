// Pruning when the database fails.
#include <SQLiteCpp/SQLiteCpp.h>
#include <gtest/gtest.h>

#include "store/store.h"
#include "tests/support/names.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using testing::id;
using testing::TempDir;
using testing::writeFile;

class PruneTroubleTest : public ::testing::Test {
 protected:
  PruneTroubleTest() {
    Store::Options options;
    options.plainWorkspaces = true;
    options.limits.maxUsed = 300000;
    auto made = Store::create(dir_ / "store", options);
    EXPECT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
  }
  void make(const std::string& name) {
    auto done = store_->build(id(name), {}, User{}, interrupt_,
                              [&](const std::shared_ptr<Workspace>& tmp) -> Status {
                                writeFile(tmp->path() + "/f", std::string(200000, 'x'));
                                return {};
                              });
    ASSERT_TRUE(done) << done.error().message;
  }
  void sql(const std::string& statement) const {
    SQLite::Database(dir_ / "store/state/db/db.sqlite", SQLite::OPEN_READWRITE, 5000)
        .exec(statement);
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
  Interrupt interrupt_;
};

TEST_F(PruneTroubleTest, ARowThatCouldNotBeDeletedTakesNoSpace) {
  make("a");
  make("b");
  ASSERT_TRUE(store_->setPinned(id("b"), true));
  sql("CREATE TRIGGER locked BEFORE DELETE ON builds BEGIN SELECT RAISE(ABORT, 'locked'); END");
  const auto room = store_->makeRoom(interrupt_);
  EXPECT_TRUE(room) << room.error().message;
  EXPECT_FALSE(store_->hasResult(id("a")));
  EXPECT_TRUE(store_->info(id("a"))) << "its row can't be deleted";
  EXPECT_TRUE(store_->makeRoom(interrupt_));
  sql("DROP TRIGGER locked");
  EXPECT_TRUE(store_->makeRoom(interrupt_));
  EXPECT_EQ(store_->info(id("a")).error().code, ENOENT) << "it was tried again";
}

TEST_F(PruneTroubleTest, ARowThatIsAnothersByNowStays) {
  make("a");
  sql("CREATE TRIGGER locked BEFORE DELETE ON builds BEGIN SELECT RAISE(ABORT, 'locked'); END");
  ASSERT_TRUE(store_->remove(id("a"), false));
  sql("DROP TRIGGER locked");
  make("a");
  make("b");
  ASSERT_TRUE(store_->setPinned(id("a"), true));
  ASSERT_TRUE(store_->makeRoom(interrupt_));
  EXPECT_TRUE(store_->hasResult(id("a")));
  EXPECT_TRUE(store_->info(id("a")));
}

}  // namespace
}  // namespace kilnfs
