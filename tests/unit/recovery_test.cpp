// Opening a store whose database says what kilnfs would never write.
#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "store/store.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using testing::exists;
using testing::readFile;
using testing::TempDir;
using testing::writeFile;

class RecoveryTest : public ::testing::Test {
 protected:
  RecoveryTest() {
    open();
    std::filesystem::create_directory(dir_ / "outside");
    writeFile(dir_ / "outside/f", "theirs");
  }
  void open() {
    auto made = Store::create(path(""), {});
    ASSERT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
  }
  void reopenWith(const std::string& sql) {
    store_.reset();
    SQLite::Database(path("state/db/db.sqlite"), SQLite::OPEN_READWRITE).exec(sql);
    open();
  }
  std::string path(const std::string& below) const { return dir_ / ("store/" + below); }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(RecoveryTest, SealedTreesAreInTheirDirectoryOnly) {
  for (const char* row :
       {"'x', '../../outside'", "'../y', '../../outside'", "'y', '.'", "'z', '..'",
        "'../../outside', 'build.1.x'", "NULL, '../../outside'", "x'78', '../../outside'"}) {
    reopenWith(fmt::format("INSERT INTO kilnfs_sealed VALUES ({}, x'')", row));
    ASSERT_TRUE(store_);
    EXPECT_TRUE(store_->sealedResults().empty()) << row;
    EXPECT_TRUE(store_->completeDeletes());
    EXPECT_EQ(readFile(dir_ / "outside/f"), "theirs") << row;
    EXPECT_TRUE(exists(path("result"))) << row;
  }
}

TEST_F(RecoveryTest, NoResultIsItsOwnBase) {
  store_.reset();
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_EQ(::mkdir(path("result/" + std::string(name)).c_str(), 0755), 0);
  }
  reopenWith(
      "INSERT INTO builds VALUES ('a', datetime('now'), datetime('now'), 1, 'b'), "
      "('b', datetime('now'), datetime('now'), 1, 'a'), "
      "('c', datetime('now'), datetime('now'), 1, 'c')");
  ASSERT_TRUE(store_);
  for (const char* name : {"a", "b", "c"}) {
    // Deleting whatever was built on it comes to an end.
    const auto gone = store_->remove(*Id::parse(name), true);
    EXPECT_TRUE(gone || gone.error().code == ENOENT);
  }
  EXPECT_TRUE(std::filesystem::is_empty(path("result")));
}

TEST_F(RecoveryTest, APublishThatCannotBeIsForgotten) {
  ASSERT_EQ(::mkdir(path("cache/c").c_str(), 0755), 0);
  writeFile(path("cache/c/f"), "ours");
  struct stat st = {};
  ASSERT_EQ(::stat(path("cache/c").c_str(), &st), 0);
  const auto row = [&](const std::string& cache, const std::string& tmp, uint64_t ino) {
    return fmt::format("INSERT INTO kilnfs_gifts VALUES ('{}', CAST('{}' AS BLOB), x'', x'', {});",
                       cache, tmp, ino);
  };
  struct stat outside = {};
  ASSERT_EQ(::stat((dir_ / "outside").c_str(), &outside), 0);
  for (const std::string& rows :
       {row("c", "../../outside", st.st_ino), row("c", "gone", st.st_ino), row("none", "gone", 0),
        row("../../outside", "gone", outside.st_ino)}) {
    reopenWith(rows);
    ASSERT_TRUE(store_);
    EXPECT_EQ(readFile(dir_ / "outside/f"), "theirs") << rows;
    EXPECT_EQ(readFile(path("cache/c/f")), "ours") << rows;
  }
}

}  // namespace
}  // namespace kilnfs
