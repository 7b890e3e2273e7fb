// The contract of store/store.h for results, sentence by sentence, in both modes.
#include "store/store.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <thread>

#include "tests/support/names.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using testing::entries;
using testing::exists;
using testing::readFile;
using testing::TempDir;
using testing::writeFile;

using testing::id;

class StoreTest : public ::testing::TestWithParam<Mode> {
 protected:
  StoreTest() { open(); }

  void open() {
    store_.reset();
    auto made = Store::create(dir_ / "store", {GetParam(), "", true});
    ASSERT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
  }
  std::string path(const std::string& below) const { return dir_ / ("store/" + below); }

  /// Builds `name`: `content` in the file `f`.
  Status make(const std::string& name, const std::optional<std::string>& base = {},
              const std::string& content = "x") {
    Interrupt interrupt;
    return store_->build(id(name), base ? std::optional(id(*base)) : std::nullopt, User{},
                         interrupt, [&](const std::shared_ptr<Workspace>& tmp) -> Status {
                           writeFile(tmp->path() + "/f", content);
                           return {};
                         });
  }
  std::string sql(const std::string& query) const {
    SQLite::Database db(path("state/db/db.sqlite"), SQLite::OPEN_READONLY);
    SQLite::Statement statement(db, query);
    std::string out;
    while (statement.executeStep()) {
      for (int i = 0; i < statement.getColumnCount(); ++i) {
        out += (i > 0 ? "|" : "") + statement.getColumn(i).getString();
      }
      out += ";";
    }
    return out;
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_P(StoreTest, KnowsWhereItIs) {
  EXPECT_EQ(store_->root(), dir_ / "store");
  EXPECT_EQ(store_->stateDir(), dir_ / "store/state");
  EXPECT_EQ(store_->mode(), GetParam());
  auto space = store_->df();
  ASSERT_TRUE(space);
  EXPECT_GT(space->totalBytes, 0U);
  EXPECT_GT(space->freePercent(), 0.0);
  EXPECT_LE(space->freePercent(), 100.0);
}

TEST_P(StoreTest, SuccessSavesTheTmpdirAsTheResult) {
  ASSERT_TRUE(make("a", {}, "hello"));
  EXPECT_EQ(readFile(path("result/a/f")), "hello");
  EXPECT_TRUE(store_->hasResult(id("a")));
  auto result = store_->result(id("a"));
  ASSERT_TRUE(result && *result);
  EXPECT_EQ((*result)->path(), path("result/a"));
  ASSERT_TRUE(store_->completeDeletes());
  EXPECT_EQ(entries(path("result-tmp")), 0U);
}

TEST_P(StoreTest, FailureRecordsNothingAndALaterCallTriesAgain) {
  Interrupt interrupt;
  const auto failed = store_->build(id("a"), {}, User{}, interrupt, [&](const auto& tmp) -> Status {
    writeFile(tmp->path() + "/half", "x");
    return fail(EIO, "no");
  });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "no");
  EXPECT_FALSE(store_->hasResult(id("a")));
  EXPECT_EQ(sql("SELECT id FROM builds"), "");
  ASSERT_TRUE(store_->completeDeletes());
  EXPECT_EQ(entries(path("result-tmp")), 0U);
  ASSERT_TRUE(make("a"));
  EXPECT_FALSE(exists(path("result/a/half")));
}

TEST_P(StoreTest, StartsFromACopyOfTheBase) {
  ASSERT_TRUE(make("a", {}, "one"));
  Interrupt interrupt;
  const auto built =
      store_->build(id("b"), id("a"), User{}, interrupt, [&](const auto& tmp) -> Status {
        EXPECT_EQ(readFile(tmp->path() + "/f"), "one");
        writeFile(tmp->path() + "/f", "two");
        writeFile(tmp->path() + "/g", "three");
        return {};
      });
  ASSERT_TRUE(built) << built.error().message;
  EXPECT_EQ(readFile(path("result/a/f")), "one");
  EXPECT_FALSE(exists(path("result/a/g")));
  EXPECT_EQ(readFile(path("result/b/f")), "two");
}

TEST_P(StoreTest, SharesInodesBetweenSnapshotsOnlyInHardlinkMode) {
  Interrupt interrupt;
  ASSERT_TRUE(store_->build(id("a"), {}, User{}, interrupt, [&](const auto& tmp) -> Status {
    writeFile(tmp->path() + "/same", "same");
    writeFile(tmp->path() + "/f", "AAAA");
    return {};
  }));
  struct stat a = {};
  struct stat b = {};
  ASSERT_EQ(::stat(path("result/a/f").c_str(), &a), 0);
  ASSERT_TRUE(store_->build(id("b"), id("a"), User{}, interrupt, [&](const auto& tmp) -> Status {
    // The same size and time with other content: what must not be taken for equal.
    writeFile(tmp->path() + "/f", "BBBB");
    const struct timespec times[2] = {a.st_atim, a.st_mtim};
    EXPECT_EQ(::utimensat(AT_FDCWD, (tmp->path() + "/f").c_str(), times, 0), 0);
    return {};
  }));
  EXPECT_EQ(readFile(path("result/b/f")), "BBBB");
  EXPECT_EQ(readFile(path("result/a/f")), "AAAA");
  ASSERT_EQ(::stat(path("result/a/same").c_str(), &a), 0);
  ASSERT_EQ(::stat(path("result/b/same").c_str(), &b), 0);
  EXPECT_EQ(a.st_ino == b.st_ino, GetParam() == Mode::hardlink);
}

TEST_P(StoreTest, LosesNothingOnTheWayFromBaseToResult) {
  Interrupt interrupt;
  ASSERT_TRUE(store_->build(id("a"), {}, User{}, interrupt, [&](const auto& tmp) -> Status {
    const std::string t = tmp->path();
    writeFile(t + "/f", "x");
    EXPECT_EQ(::link((t + "/f").c_str(), (t + "/hard").c_str()), 0);
    EXPECT_EQ(::symlink("../nowhere", (t + "/soft").c_str()), 0);
    EXPECT_EQ(::mkfifo((t + "/fifo").c_str(), 0600), 0);
    EXPECT_EQ(::setxattr((t + "/f").c_str(), "user.k", "v", 1, 0), 0);
    EXPECT_EQ(::chmod((t + "/f").c_str(), 0751), 0);
    writeFile(t + "/sparse", "x");
    EXPECT_EQ(::truncate((t + "/sparse").c_str(), 64 << 20), 0);
    const struct timespec times[2] = {{1, 1}, {1234567890, 123456789}};
    EXPECT_EQ(::utimensat(AT_FDCWD, (t + "/f").c_str(), times, 0), 0);
    return {};
  }));
  ASSERT_TRUE(make("b", "a", "y"));
  const std::string r = path("result/b");
  struct stat f = {};
  struct stat hard = {};
  ASSERT_EQ(::lstat((r + "/hard").c_str(), &hard), 0);
  ASSERT_EQ(::lstat((r + "/f").c_str(), &f), 0);
  EXPECT_EQ(f.st_ino, hard.st_ino) << "hard links inside the tree stay";
  EXPECT_EQ(f.st_mode & 07777, 0751U);
  EXPECT_EQ(readFile(r + "/hard"), "y");
  char value[8] = {};
  EXPECT_EQ(::getxattr((r + "/f").c_str(), "user.k", value, sizeof value), 1);
  EXPECT_EQ(std::filesystem::read_symlink(r + "/soft"), "../nowhere");
  ASSERT_EQ(::lstat((r + "/fifo").c_str(), &f), 0);
  EXPECT_TRUE(S_ISFIFO(f.st_mode));
  ASSERT_EQ(::lstat((r + "/sparse").c_str(), &f), 0);
  EXPECT_EQ(f.st_size, 64 << 20);
  EXPECT_LT(f.st_blocks * 512, 1 << 20);
}

TEST_P(StoreTest, RefusesAnUnknownBaseAndAnIdThatExists) {
  EXPECT_EQ(make("b", "nope").error().code, ENOENT);
  ASSERT_TRUE(make("a"));
  EXPECT_EQ(make("a").error().code, EEXIST);
}

TEST_P(StoreTest, RefusesToBuildOneIdTwiceAtATime) {
  Interrupt interrupt;
  ASSERT_TRUE(store_->build(id("a"), {}, User{}, interrupt, [&](const auto&) -> Status {
    EXPECT_EQ(make("a").error().code, EBUSY);
    return {};
  }));
}

TEST_P(StoreTest, AnInterruptEndsTheCopying) {
  ASSERT_TRUE(make("a"));
  Interrupt interrupt;
  interrupt.raise();
  bool ran = false;
  const auto built = store_->build(id("b"), id("a"), User{}, interrupt, [&](const auto&) -> Status {
    ran = true;
    return {};
  });
  ASSERT_FALSE(built);
  EXPECT_EQ(built.error().code, EINTR);
  EXPECT_FALSE(ran);
}

TEST_P(StoreTest, KeepsObuildersTable) {
  ASSERT_TRUE(make("a"));
  ASSERT_TRUE(make("b", "a"));
  ASSERT_TRUE(make("c", "a"));
  EXPECT_EQ(sql("SELECT id, rc, coalesce(parent, '-') FROM builds ORDER BY id"),
            "a|2|-;b|0|a;c|0|a;");
  EXPECT_EQ(sql("SELECT count(*) FROM builds WHERE created GLOB "
                "'[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9]'"),
            "3;");
  ASSERT_TRUE(store_->remove(id("b"), false));
  EXPECT_EQ(sql("SELECT id, rc FROM builds ORDER BY id"), "a|1;c|0;");
  auto info = store_->info(id("c"));
  ASSERT_TRUE(info);
  EXPECT_EQ(info->parent, id("a"));
  EXPECT_NEAR(static_cast<double>(info->created), static_cast<double>(::time(nullptr)), 60);
}

TEST_P(StoreTest, DeletesOnlyWhatNobodyWasBuiltOn) {
  ASSERT_TRUE(make("a"));
  ASSERT_TRUE(make("b", "a"));
  EXPECT_EQ(store_->remove(id("a"), false).error().code, ENOTEMPTY);
  EXPECT_TRUE(store_->hasResult(id("a")));
  EXPECT_EQ(store_->remove(id("zz"), false).error().code, ENOENT);
  ASSERT_TRUE(store_->remove(id("a"), true));
  EXPECT_FALSE(store_->hasResult(id("a")));
  EXPECT_FALSE(store_->hasResult(id("b")));
  EXPECT_EQ(sql("SELECT id FROM builds"), "");
}

TEST_P(StoreTest, DoesNotDeleteTheBaseOfARunningBuild) {
  ASSERT_TRUE(make("a"));
  Interrupt interrupt;
  ASSERT_TRUE(store_->build(id("b"), id("a"), User{}, interrupt, [&](const auto&) -> Status {
    EXPECT_EQ(store_->remove(id("a"), false).error().code, EBUSY);
    EXPECT_EQ(store_->remove(id("a"), true).error().code, EBUSY);
    return {};
  }));
}

TEST_P(StoreTest, ADeletedResultCanBeReadOnByWhoHasItOpen) {
  ASSERT_TRUE(make("a", {}, "still"));
  auto snapshot = *store_->result(id("a"));
  auto fd = snapshot->open("f", O_RDONLY);
  ASSERT_TRUE(fd);
  ASSERT_TRUE(store_->remove(id("a"), false));
  ASSERT_TRUE(store_->completeDeletes());
  char text[8] = {};
  EXPECT_EQ(::pread(fd->get(), text, sizeof text, 0), 5);
  EXPECT_STREQ(text, "still");
  EXPECT_EQ(entries(path("result-tmp")), 0U);
}

TEST_P(StoreTest, NeverFollowsALinkOutOfATree) {
  Interrupt interrupt;
  ASSERT_TRUE(store_->build(id("a"), {}, User{}, interrupt, [&](const auto& tmp) -> Status {
    EXPECT_EQ(::symlink("/etc", (tmp->path() + "/etc").c_str()), 0);
    return {};
  }));
  auto snapshot = *store_->result(id("a"));
  EXPECT_EQ(snapshot->open("etc/passwd", O_RDONLY).error().code, ELOOP);
  EXPECT_EQ(snapshot->open("../../state", O_RDONLY).error().code, EXDEV);
}

TEST_P(StoreTest, LogsAreBesideResultsAndOutliveFailure) {
  EXPECT_EQ(store_->logFile(id("a")), std::nullopt);
  Interrupt interrupt;
  const auto failed = store_->build(id("a"), {}, User{}, interrupt, [&](const auto&) -> Status {
    auto log = store_->createLog(id("a"));
    EXPECT_TRUE(log);
    EXPECT_EQ(::write(log->get(), "boo\n", 4), 4);
    EXPECT_EQ(store_->removeLog(id("a")).error().code, EBUSY);
    return fail(EIO, "x");
  });
  EXPECT_FALSE(failed);
  ASSERT_EQ(store_->logFile(id("a")), path("log/a"));
  EXPECT_EQ(readFile(path("log/a")), "boo\n");
  ASSERT_TRUE(store_->createLog(id("a")));
  EXPECT_EQ(readFile(path("log/a")), "") << "a new attempt starts a new log";
  ASSERT_TRUE(store_->removeLog(id("a")));
  EXPECT_EQ(store_->removeLog(id("a")).error().code, ENOENT);
}

TEST_P(StoreTest, UseIsRecorded) {
  ASSERT_TRUE(make("a"));
  {
    SQLite::Database db(path("state/db/db.sqlite"), SQLite::OPEN_READWRITE, 1000);
    db.exec("UPDATE builds SET used = '2001-01-01 00:00:00'");
  }
  store_->touch(id("a"));
  open();
  EXPECT_EQ(sql("SELECT count(*) FROM builds WHERE used > '2020-01-01 00:00:00'"), "1;");
}

TEST_P(StoreTest, ASecondOpenerIsRefused) {
  auto second = Store::create(dir_ / "store", {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, EBUSY);
  EXPECT_NE(second.error().message.find("in use"), std::string::npos);
}

TEST_P(StoreTest, TheModeIsFixedWhenTheStoreIsMade) {
  store_.reset();
  const Mode other = GetParam() == Mode::copy ? Mode::hardlink : Mode::copy;
  EXPECT_EQ(Store::create(dir_ / "store", {other, ""}).error().code, EINVAL);
  auto again = Store::create(dir_ / "store", {});
  ASSERT_TRUE(again);
  EXPECT_EQ((*again)->mode(), GetParam());
}

TEST_P(StoreTest, StartUpRemovesGarbageAndReconciles) {
  ASSERT_TRUE(make("a"));
  ASSERT_TRUE(make("b", "a"));
  store_.reset();
  std::filesystem::create_directories(path("result-tmp/build.9.x/deep/er"));
  std::filesystem::create_directories(path("cache-tmp/0-npm"));
  std::filesystem::create_directories(path("result/found"));
  std::filesystem::remove_all(path("result/a"));
  open();
  ASSERT_TRUE(store_->completeDeletes());
  EXPECT_EQ(entries(path("result-tmp")), 0U);
  EXPECT_EQ(entries(path("cache-tmp")), 0U);
  EXPECT_EQ(sql("SELECT id, rc, coalesce(parent, '-') FROM builds ORDER BY id"),
            "b|0|-;found|0|-;");
}

TEST_P(StoreTest, ACorruptDatabaseIsMadeAnewFromTheDirectories) {
  ASSERT_TRUE(make("a"));
  store_.reset();
  writeFile(path("state/db/db.sqlite"), std::string(8192, 'x'));
  open();
  EXPECT_TRUE(store_->hasResult(id("a")));
  EXPECT_EQ(sql("SELECT id FROM builds"), "a;");
}

TEST_P(StoreTest, OnlyOneOfManyBuildersOfOneIdWins) {
  std::atomic<int> won{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { won += make("same") ? 1 : 0; });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(won, 1);
}

INSTANTIATE_TEST_SUITE_P(Modes, StoreTest, ::testing::Values(Mode::copy, Mode::hardlink),
                         [](const auto& test) { return modeName(test.param); });

// A store as OBuilder leaves it: taken over, built upon, given back.
TEST(ObuilderStoreTest, IsTakenOverAndGivenBack) {
  const TempDir dir;
  const std::string root = dir / "store";
  for (const char* d : {"result/base/rootfs/bin", "result-tmp", "cache", "cache-tmp", "state/db"}) {
    std::filesystem::create_directories(root + "/" + d);
  }
  writeFile(root + "/result/base/rootfs/bin/tool", "#!");
  writeFile(root + "/result/base/log", "its own log\n");
  {
    SQLite::Database db(root + "/state/db/db.sqlite", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    db.exec(
        "CREATE TABLE builds (id TEXT PRIMARY KEY, created DATETIME NOT NULL, used DATETIME "
        "NOT NULL, rc INTEGER NOT NULL, parent TEXT, FOREIGN KEY (parent) REFERENCES builds "
        "(id) ON DELETE RESTRICT)");
    db.exec(
        "INSERT INTO builds VALUES ('base', '2024-01-02 03:04:05', '2024-01-02 03:04:05', 0, "
        "NULL)");
  }
  auto made = Store::create(root, {{}, "", true});
  ASSERT_TRUE(made) << made.error().message;
  Store& store = **made;
  EXPECT_EQ(store.logFile(id("base")), root + "/result/base/log");
  EXPECT_EQ(store.info(id("base"))->created, 1704164645);
  Interrupt interrupt;
  ASSERT_TRUE(
      store.build(id("next"), id("base"), User{}, interrupt, [&](const auto& tmp) -> Status {
        EXPECT_EQ(readFile(tmp->path() + "/rootfs/bin/tool"), "#!");
        EXPECT_FALSE(exists(tmp->path() + "/log")) << "the base's log is not part of its tree";
        return {};
      }));
  made->reset();
  SQLite::Database db(root + "/state/db/db.sqlite", SQLite::OPEN_READONLY);
  EXPECT_EQ(db.execAndGet("SELECT rc FROM builds WHERE id = 'base'").getInt(), 1);
  EXPECT_EQ(db.execAndGet("SELECT parent FROM builds WHERE id = 'next'").getString(), "base");
  EXPECT_EQ(db.execAndGet("SELECT created FROM builds WHERE id = 'base'").getString(),
            "2024-01-02 03:04:05");
}

TEST(StoreCreateTest, SaysWhatIsWrongWithAPath) {
  const TempDir dir;
  writeFile(dir / "file", "x");
  EXPECT_EQ(Store::create(dir / "file", {}).error().code, ENOTDIR);
  std::filesystem::create_directories(dir / "other/stuff");
  EXPECT_EQ(Store::create(dir / "other", {}).error().code, ENOTEMPTY);
  EXPECT_EQ(Store::create(dir / "no/parent", {}).error().code, ENOENT);
  EXPECT_FALSE(exists(dir / "other/result"));
}

}  // namespace
}  // namespace kilnfs
