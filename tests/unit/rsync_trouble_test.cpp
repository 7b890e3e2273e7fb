// rsync that fails or gets stuck where the store itself runs it: for plain workspaces.
#include <gtest/gtest.h>
#include <stdlib.h>
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

/// A directory that is first in PATH has a script in rsync's place.
class PlainRsyncTest : public ::testing::TestWithParam<Mode> {
 protected:
  PlainRsyncTest() {
    std::filesystem::create_directory(dir_ / "bin");
    const std::string rsync = dir_ / "bin/rsync";
    writeFile(rsync, "#!/bin/sh\nfor to; do :; done\ncase $(cat " + (dir_ / "how") +
                         ") in\n"
                         "works) PATH='" +
                         path_ +
                         "' exec rsync \"$@\" ;;\n"
                         "fails) echo half >\"$to/half\"; echo one >&2; echo last >&2; exit 23 ;;\n"
                         "dies) echo half >\"$to/half\"; kill -KILL $$ ;;\n"
                         "stops) echo half >\"$to/half\"; touch " +
                         (dir_ / "began") + "; kill -STOP $$ ;;\nesac\n");
    ::chmod(rsync.c_str(), 0755);
    ::setenv("PATH", ((dir_ / "bin") + ":" + path_).c_str(), 1);
    rsyncIs("works");
    auto made = Store::create(dir_ / "store", {GetParam(), "", true});
    EXPECT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
    EXPECT_TRUE(make("a", std::nullopt));
  }
  ~PlainRsyncTest() override {
    EXPECT_TRUE(store_->completeDeletes());
    EXPECT_EQ(readFile(dir_ / "store/result/a/f"), "x");
    EXPECT_EQ(entries(dir_ / "store/result-tmp"), 0U) << "nothing is left behind";
    EXPECT_EQ(entries(dir_ / "store/cache-tmp"), 0U);
    ::setenv("PATH", path_.c_str(), 1);
  }

  void rsyncIs(const std::string& how) const { writeFile(dir_ / "how", how); }
  /// Builds `name`; from when the command runs, rsync is `then`.
  Status make(const std::string& name, const std::optional<std::string>& base,
              const std::string& then = "works") {
    return store_->build(*Id::parse(name), base ? std::optional(*Id::parse(*base)) : std::nullopt,
                         User{}, interrupt_, [&](const auto& tmp) -> Status {
                           writeFile(tmp->path() + "/f", "x");
                           rsyncIs(then);
                           return {};
                         });
  }
  void failed(const Status& done, const std::string& name) {
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, EIO);
    EXPECT_NE(done.error().message.find("rsync"), std::string::npos) << done.error().message;
    EXPECT_FALSE(store_->hasResult(*Id::parse(name)));
    rsyncIs("works");
    EXPECT_TRUE(make(name, "a")) << "it can be tried again";
  }
  /// Interrupts `work` when rsync is stuck.
  Status interrupted(const std::function<Status()>& work) {
    std::thread other([this] {
      while (!exists(dir_ / "began")) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      interrupt_.raise();
    });
    const Status done = work();
    other.join();
    return done;
  }

  const std::string path_ = ::getenv("PATH");
  TempDir dir_;
  std::unique_ptr<Store> store_;
  Interrupt interrupt_;
  const CacheName name_ = *CacheName::parse("npm");
};

TEST_P(PlainRsyncTest, ACopyOfTheBaseThatFails) {
  for (const char* how : {"fails", "dies"}) {
    rsyncIs(how);
    failed(make(std::string("b-") + how, "a"), std::string("b-") + how);
  }
  rsyncIs("fails");
  EXPECT_NE(make("c", "a").error().message.find("exited with 23: one\nlast"), std::string::npos);
}

TEST_P(PlainRsyncTest, ACopyOfTheBaseThatIsStuck) {
  rsyncIs("stops");
  const Status done = interrupted([this] { return make("b", "a"); });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, EINTR);
  EXPECT_FALSE(store_->hasResult(*Id::parse("b")));
}

TEST_P(PlainRsyncTest, SharingWithTheBaseThatFails) {
  for (const char* how : {"fails", "dies"}) {
    const std::string name = std::string("b-") + how;
    rsyncIs("works");
    const Status done = make(name, "a", how);
    if (GetParam() == Mode::hardlink) {
      failed(done, name);
    } else {
      EXPECT_TRUE(done) << "nothing is shared, so rsync is not asked";
    }
  }
}

TEST_P(PlainRsyncTest, SharingWithTheBaseThatIsStuck) {
  if (GetParam() == Mode::copy) {
    EXPECT_TRUE(make("b", "a", "fails")) << "nothing is shared, so rsync is not asked";
    return;
  }
  const Status done = interrupted([this] { return make("b", "a", "stops"); });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, EINTR);
  EXPECT_FALSE(store_->hasResult(*Id::parse("b")));
}

TEST_P(PlainRsyncTest, ALeaseWhoseCopyFails) {
  for (const char* how : {"fails", "dies"}) {
    rsyncIs(how);
    const auto lease = store_->cache({}, name_);
    ASSERT_FALSE(lease);
    EXPECT_EQ(lease.error().code, EIO);
  }
  rsyncIs("works");
  auto lease = store_->cache({}, name_);
  ASSERT_TRUE(lease);
  EXPECT_TRUE(store_->release(*lease, true, "me"));
}

TEST_P(PlainRsyncTest, ALeaseThatIsPublishedByOneThatFails) {
  const auto publish = [this](const std::string& content, const std::string& how) {
    rsyncIs("works");
    auto lease = store_->cache({}, name_);
    EXPECT_TRUE(lease);
    EXPECT_TRUE(lease->workspace->beginChange());
    writeFile(lease->workspace->path() + "/f", content);
    rsyncIs(how);
    return store_->release(*lease, false, "me");
  };
  ASSERT_TRUE(publish("first", "works"));
  for (const char* how : {"fails", "dies"}) {
    const auto done = publish("second", how);
    EXPECT_EQ(done.has_value(), GetParam() == Mode::copy) << "only sharing needs it";
    EXPECT_EQ(readFile(dir_ / "store/cache/npm/f"), GetParam() == Mode::copy ? "second" : "first");
  }
  ASSERT_TRUE(publish("third", "works"));
  EXPECT_EQ(readFile(dir_ / "store/cache/npm/f"), "third");
}

INSTANTIATE_TEST_SUITE_P(Modes, PlainRsyncTest, ::testing::Values(Mode::copy, Mode::hardlink),
                         [](const auto& mode) { return modeName(mode.param); });

}  // namespace
}  // namespace kilnfs
