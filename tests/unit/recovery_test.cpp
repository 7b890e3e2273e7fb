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
  void publish(const std::string& content) {
    auto lease = store_->cache(User{}, *CacheName::parse("c"));
    ASSERT_TRUE(lease);
    writeFile(lease->workspace->path() + "/f", content);
    lease->workspace->markChanged();
    ASSERT_TRUE(store_->release(*lease, false, "test"));
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(RecoveryTest, SealedTreesAreInTheirDirectoryOnly) {
  for (const char* row : {"'x', '../../outside'", "'../y', '../../outside'", "'y', '.'",
                          "'z', '..'", "'../../outside', 'build.1.x'"}) {
    reopenWith(fmt::format("INSERT INTO kilnfs_sealed VALUES ({}, x'')", row));
    ASSERT_TRUE(store_);
    EXPECT_TRUE(store_->sealedResults().empty()) << row;
    EXPECT_TRUE(store_->completeDeletes());
    EXPECT_EQ(readFile(dir_ / "outside/f"), "theirs") << row;
    EXPECT_TRUE(exists(path("result"))) << row;
  }
}

TEST_F(RecoveryTest, APublishThatCannotBeIsForgotten) {
  publish("ours");
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
