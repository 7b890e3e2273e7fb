// What a crash of the machine may cost, and what it may not. The crash itself is tested on a block
// device that loses writes (tests/campaign/power.py); here another boot is made believe.
#include "store/durability.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/fault.h"
#include "store/store.h"
#include "tests/support/names.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tree_editor.h"

namespace kilnfs {
namespace {

using testing::exists;
using testing::readFile;
using testing::TempDir;
using testing::writeFile;

using testing::id;

std::unique_ptr<Store> openStore(const std::string& path) {
  auto made = Store::create(path, {std::nullopt, "", true});
  EXPECT_TRUE(made) << made.error().message;
  return made ? std::move(*made) : nullptr;
}

Status make(Store& store, const std::string& name, const std::string& content = "x") {
  Interrupt interrupt;
  return store.build(id(name), std::nullopt, User{}, interrupt,
                     [&](const std::shared_ptr<Workspace>& tmp) -> Status {
                       writeFile(tmp->path() + "/f", content);
                       return {};
                     });
}

void publish(Store& store, const std::string& content) {
  auto lease = store.cache(User{}, *CacheName::parse("npm"));
  ASSERT_TRUE(lease);
  writeFile(lease->workspace->path() + "/f", content);
  lease->workspace->markChanged();
  ASSERT_TRUE(store.release(*lease, false, "a test"));
}

class DurabilityTest : public ::testing::Test {
 protected:
  /// A session of a daemon that ends as by kill -9.
  void session(const std::function<void(Store&)>& body) {
    const pid_t child = ::fork();
    if (child == 0) {
      auto store = openStore(path_);
      if (store) body(*store);
      ::_exit(store && !::testing::Test::HasFailure() ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_EQ(status, 0);
  }
  /// As if the machine had crashed since.
  void crash() const { writeFile(file("state/synced/session"), "another-boot running\n"); }
  /// What a sync would have made.
  void mark(const std::string& name) const { writeFile(file("state/synced/" + name), ""); }
  std::string file(const std::string& below) const { return path_ + "/" + below; }
  void sql(const std::string& statement) const {
    SQLite::Database(file("state/db/db.sqlite"), SQLite::OPEN_READWRITE).exec(statement);
  }

  TempDir dir_;
  const std::string path_ = dir_ / "store";
};

TEST_F(DurabilityTest, KillingTheDaemonLosesNothing) {
  session([](Store& s) {
    ASSERT_TRUE(make(s, "a"));
    publish(s, "1");
  });
  auto store = openStore(path_);
  EXPECT_TRUE(store->hasResult(id("a")));
  EXPECT_EQ(readFile(file("cache/npm/f")), "1");
  EXPECT_TRUE(exists(file("state/synced/result.a"))) << "synced before the next session begins";
}

TEST_F(DurabilityTest, ACleanStopIsNoCrashWhateverBootComesNext) {
  {
    auto store = openStore(path_);
    ASSERT_TRUE(make(*store, "a"));
    publish(*store, "1");
  }
  std::string last = readFile(file("state/synced/session"));
  EXPECT_NE(last.find(" clean"), std::string::npos);
  EXPECT_TRUE(exists(file("state/synced/result.a")));
  EXPECT_TRUE(exists(file("state/synced/cache.npm")));
  writeFile(file("state/synced/session"), "another-boot clean\n");
  auto store = openStore(path_);
  EXPECT_TRUE(store->hasResult(id("a")));
  EXPECT_TRUE(store->hasCache(*CacheName::parse("npm")));
}

TEST_F(DurabilityTest, TheMachinesCrashDropsWhatWasNotSynced) {
  session([&](Store& s) {
    ASSERT_TRUE(make(s, "synced"));
    ASSERT_TRUE(make(s, "late"));
    mark("result.synced");
  });
  crash();
  auto store = openStore(path_);
  EXPECT_TRUE(store->hasResult(id("synced")));
  EXPECT_FALSE(store->hasResult(id("late")));
  EXPECT_FALSE(store->info(id("late"))) << "its row goes too";
  EXPECT_TRUE(make(*store, "late")) << "it can be built again";
}

TEST_F(DurabilityTest, AResultWhoseRowWasLostIsDroppedButNotOneOfObuilders) {
  session([&](Store& s) { ASSERT_TRUE(make(s, "late")); });
  sql("DELETE FROM builds; DELETE FROM kilnfs_results");
  // Made by OBuilder while no daemon had the store.
  ASSERT_EQ(::mkdir(file("result/theirs").c_str(), 0755), 0);
  sql("INSERT INTO builds VALUES ('theirs', datetime('now'), datetime('now'), 0, NULL)");
  crash();
  auto store = openStore(path_);
  EXPECT_FALSE(store->hasResult(id("late")));
  EXPECT_TRUE(store->hasResult(id("theirs")));
}

TEST_F(DurabilityTest, AStoreOfObuildersIsTakenOverWhole) {
  for (const char* d : {"", "/result", "/result/theirs", "/cache", "/cache/npm"}) {
    ASSERT_EQ(::mkdir((path_ + d).c_str(), 0755), 0);
  }
  session([](Store&) {});
  crash();
  auto store = openStore(path_);
  EXPECT_TRUE(store->hasResult(id("theirs"))) << "it was synced when the first session began";
  EXPECT_TRUE(store->hasCache(*CacheName::parse("npm")));
}

TEST_F(DurabilityTest, ACacheWhoseLatestIsNotOnDiskIsDroppedAndItsGenerationGoesOn) {
  session([&](Store& s) { publish(s, "1"); });
  openStore(path_).reset();  // a clean stop: "1" is on disk
  session([&](Store& s) {
    publish(s, "2");
    EXPECT_FALSE(exists(file("state/synced/cache.npm")));
  });
  crash();
  auto store = openStore(path_);
  EXPECT_FALSE(store->hasCache(*CacheName::parse("npm")));
  auto lease = store->cache(User{}, *CacheName::parse("npm"));
  ASSERT_TRUE(lease);
  EXPECT_EQ(lease->generation, 3U);
  ASSERT_TRUE(store->release(*lease, true, ""));
}

TEST_F(DurabilityTest, APublishThatTheCrashInterruptedIsNotFinished) {
  session([&](Store& s) {
    publish(s, "1");
    mark("cache.npm");
  });
  struct stat st = {};
  ASSERT_EQ(::stat(file("cache/npm").c_str(), &st), 0);
  sql("INSERT INTO kilnfs_gifts VALUES ('npm', '9.npm', '', '', " + std::to_string(st.st_ino) +
      ")");
  crash();
  auto store = openStore(path_);
  ASSERT_TRUE(store);
  EXPECT_EQ(readFile(file("cache/npm/f")), "1");
}

TEST_F(DurabilityTest, ANewTreeOfAnOldNameIsNotVouchedForByTheOldOnesMark) {
  session([&](Store& s) {
    ASSERT_TRUE(make(s, "a", "old"));
    mark("result.a");
    ASSERT_TRUE(s.remove(id("a"), false));
    ASSERT_TRUE(make(s, "a", "new"));
  });
  crash();
  EXPECT_FALSE(openStore(path_)->hasResult(id("a")));
}

// It is on disk as it was sealed, and as what is to take its place: one of them is found.
TEST_F(DurabilityTest, ASyncedResultIsNotLostWhileItIsPutInPlace) {
  for (const char* point : {"result.plain", "result.placed"}) {
    const std::string name = std::string("x.") + point;
    const std::string above = name + ".above";
    const pid_t child = ::fork();
    if (child == 0) {
      auto store = *Store::create(path_, {});
      (void)make(*store, "base");
      for (const auto& [what, base] : {std::pair(name, std::string("base")), {above, name}}) {
        writeFile(file("result/" + what), "in the way");
        Interrupt none;
        const auto done = store->build(id(what), id(base), User{}, none, [&](const auto& tmp) {
          testing::Editor(tmp).write("own", what);
          return Status();
        });
        if (!done) ::_exit(1);
      }
      (void)store->completeDeletes();
      for (const std::string& what : {std::string("base"), name, above}) mark("result." + what);
      ::unlink(file("result/" + name).c_str());
      armedFault = point;
      (void)store->completeDeletes();
      ::_exit(1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_EQ(WEXITSTATUS(status), 99) << point;
    ::unlink(file("result/" + above).c_str());
    crash();
    auto store = *Store::create(path_, {});
    EXPECT_TRUE(store->hasResult(id(name))) << point;
    EXPECT_TRUE(store->hasResult(id(above))) << point << ": what lies over it";
    ASSERT_TRUE(store->completeDeletes());
    EXPECT_EQ(readFile(file("result/" + name + "/own")), name);
    EXPECT_EQ(readFile(file("result/" + name + "/f")), "x");
    EXPECT_EQ(readFile(file("result/" + above + "/own")), above);
  }
}

TEST_F(DurabilityTest, ACommitIsSyncedInTheBackground) {
  ASSERT_EQ(::mkdir(path_.c_str(), 0755), 0);
  auto layout = Layout::open(path_, false);
  ASSERT_TRUE(layout);
  Durability durability(*layout, std::chrono::milliseconds(1));
  ASSERT_TRUE(durability.open());
  EXPECT_FALSE(durability.machineCrashed());
  ASSERT_TRUE(durability.begin());
  ASSERT_EQ(::mkdir(file("result/a").c_str(), 0755), 0);
  durability.committed(TreeKind::result, "a");
  while (!durability.marked(TreeKind::result, "a")) ::usleep(1000);
  ASSERT_TRUE(durability.changing(TreeKind::result, "a"));
  EXPECT_FALSE(durability.marked(TreeKind::result, "a"));
  EXPECT_TRUE(durability.sync());
  EXPECT_FALSE(durability.marked(TreeKind::result, "a")) << "it is not committed again";
}

}  // namespace
}  // namespace kilnfs
