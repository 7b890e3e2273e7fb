// A result that can't be read when the store is opened is not shown, and is not given up either.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "store/control/control.h"
#include "tests/support/names.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tree_editor.h"
#include "tests/support/unprivileged.h"

namespace kilnfs {
namespace {

using nlohmann::json;
using testing::Editor;
using testing::exists;
using ::testing::HasSubstr;
using testing::readFile;
using testing::readIn;
using testing::TempDir;
using testing::Unprivileged;
using testing::writeFile;

using testing::id;

// x is saved but not plain, and lies over a base whose directory can't be searched any more.
class UnreadTest : public ::testing::TestWithParam<Mode> {
 protected:
  UnreadTest() {
    open();
    EXPECT_TRUE(build("base", {}, [](Editor& e) {
      e.mkdir("a");
      e.write("a/file", "one");
    }));
    EXPECT_TRUE(store_->createLog(id("x")));
    writeFile(path("log/x"), "the log of x");
    writeFile(path("result/x"), "in the way");
    EXPECT_TRUE(build("x", "base", [](Editor& e) { e.write("top", "x"); }));
    close();
    std::filesystem::remove(path("result/x"));
    baseIs(0200);
    open();
  }
  ~UnreadTest() override { baseIs(0755); }

  void open() {
    auto made = Store::create(path(""), {GetParam(), "", false});
    ASSERT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
    leases_ = Leases::create(*store_, {});
    builds_ = Builds::create(*store_, *leases_, {});
    control_ = Control::create(*store_, *leases_, *builds_);
    me_.uid = ::geteuid();
    me_.gid = ::getegid();
    me_.cwd = dir_.path();
  }
  void close() {
    control_.reset();
    builds_.reset();
    leases_.reset();
    store_.reset();
  }
  void baseIs(mode_t mode) const { ::chmod(path("result/base").c_str(), mode); }
  Status build(const std::string& name, const std::optional<std::string>& base,
               const std::function<void(Editor&)>& edit) {
    return store_->build(id(name), base ? std::optional(id(*base)) : std::nullopt, User{},
                         interrupt_, [&](const auto& tmp) -> Status {
                           Editor editor(tmp);
                           edit(editor);
                           return {};
                         });
  }
  static void refused(const Status& done) {
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, EIO);
    EXPECT_THAT(done.error().message, HasSubstr("x is stored, but could not be read"));
  }
  json ask(const std::string& command) {
    auto session = control_->open();
    const std::string line = command + "\n";
    const Status done = session->write(0, line, me_, interrupt_);
    auto answer = session->read(done ? line.size() : 0, 65536, interrupt_);
    EXPECT_TRUE(answer);
    json out = json::parse(answer.value_or(""), nullptr, false);
    EXPECT_EQ(done.has_value(), out.value("ok", false)) << out;
    return out;
  }
  void refused(const std::string& command) {
    const json answer = ask(command);
    EXPECT_EQ(answer.value("errno", ""), "EIO") << answer;
    EXPECT_THAT(answer.value("message", ""), HasSubstr("x is stored, but could not be read"));
  }
  std::map<std::string, Verified> verify(bool repair) {
    auto verified = store_->verify({}, repair, interrupt_);
    EXPECT_TRUE(verified) << verified.error().message;
    std::map<std::string, Verified> out;
    for (const Verified& each : *verified) out.emplace(each.id, each);
    return out;
  }
  /// With what was in the way gone, the next start has x as it was saved.
  void isWholeAtTheNextStart() {
    close();
    baseIs(0755);
    open();
    ASSERT_TRUE(store_->hasResult(id("x")));
    {
      const auto tree = Tree::create(*store_->result(id("x")), 0);
      EXPECT_EQ(readIn(*tree, "top"), "x");
      EXPECT_EQ(readIn(*tree, "a/file"), "one");
    }
    EXPECT_EQ(readFile(path("log/x")), "the log of x");
    EXPECT_EQ(store_->info(id("x"))->parent, id("base"));
    ASSERT_TRUE(store_->completeDeletes());
    EXPECT_EQ(readFile(path("result/x/top")), "x");
    EXPECT_EQ(readFile(path("result/x/a/file")), "one");
    EXPECT_EQ(testing::entries(path("result-tmp")), 0U);
  }
  std::string path(const std::string& below) const { return dir_ / ("store/" + below); }

  TempDir dir_;
  Unprivileged user_{dir_.path()};
  Requester me_;
  Interrupt interrupt_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Leases> leases_;
  std::unique_ptr<Builds> builds_;
  std::unique_ptr<Control> control_;
};

TEST_P(UnreadTest, ItIsNotShownAndComesBack) {
  EXPECT_FALSE(store_->hasResult(id("x")));
  EXPECT_TRUE(store_->sealedResults().empty());
  EXPECT_EQ(store_->result(id("x")).error().code, EIO) << "nor said not to be there";
  isWholeAtTheNextStart();
}

TEST_P(UnreadTest, ItIsNotBuiltAnew) {
  refused(build("x", {}, [](Editor& e) { e.write("top", "another"); }));
  refused("build x -- true");
  refused("build x --wait -- true");
  std::filesystem::create_directory(dir_ / "source");
  refused("import x source");
  refused("wait x");
  isWholeAtTheNextStart();
}

TEST_P(UnreadTest, NothingIsBuiltOnIt) {
  refused(build("y", "x", [](Editor& e) { e.write("new", "y"); }));
  refused("build y --base x -- true");
  EXPECT_FALSE(store_->hasResult(id("y")));
  isWholeAtTheNextStart();
}

TEST_P(UnreadTest, VerifyCallsItUnreadableAndLeavesIt) {
  auto found = verify(false);
  EXPECT_EQ(actionName(found.at("x").action), "unreadable");
  EXPECT_THAT(found.at("x").why, HasSubstr("could not be read"));
  found = verify(true);
  EXPECT_EQ(actionName(found.at("x").action), "unreadable");
  EXPECT_FALSE(found.at("x").repaired);
  EXPECT_THAT(found.at("x").why, HasSubstr("left where it is"));
  // The base can't be read for the same reason, and without it x would be lost.
  EXPECT_FALSE(found.at("base").repaired);
  EXPECT_THAT(found.at("base").why, HasSubstr("not set aside: x, which could not be read"));
  const json answer = ask("verify x --repair");
  EXPECT_EQ(answer.value("errno", ""), "EIO");
  EXPECT_THAT(answer.value("message", ""), HasSubstr("1 of 1 results can't be read now"));
  EXPECT_EQ(answer.at("results").at(0).at("action"), "unreadable");
  isWholeAtTheNextStart();
}

TEST_P(UnreadTest, ItsBaseStays) {
  EXPECT_EQ(ask("delete base").value("errno", ""), "ENOTEMPTY");
  isWholeAtTheNextStart();
}

// Saved while its own base was not plain, it lies over that one's.
TEST_P(UnreadTest, WhatItLiesOverStaysThoughItsBaseIsGone) {
  close();
  baseIs(0755);
  open();
  ASSERT_TRUE(ask("delete x").value("ok", false));  // another child
  for (const char* name : {"between", "far"}) {
    ASSERT_TRUE(store_->createLog(id(name)));
    writeFile(path("result/") + name, "in the way");
  }
  ASSERT_TRUE(build("between", "base", [](Editor& e) { e.write("top", "between"); }));
  ASSERT_TRUE(build("far", "between", [](Editor& e) { e.write("far", "far"); }));
  std::filesystem::remove(path("result/between"));
  close();
  baseIs(0755);
  open();
  const Status done = store_->completeDeletes();
  ASSERT_FALSE(done) << "far is not made plain";
  EXPECT_THAT(done.error().message, HasSubstr("making far plain: "));
  ASSERT_TRUE(exists(path("result/between/top")));
  close();
  std::filesystem::remove(path("result/far"));
  baseIs(0200);
  open();
  ASSERT_EQ(store_->result(id("far")).error().code, EIO);
  std::filesystem::remove_all(path("result/between"));
  EXPECT_TRUE(verify(true).at("between").repaired);
  EXPECT_EQ(ask("delete base").value("errno", ""), "ENOTEMPTY");
  close();
  baseIs(0755);
  open();
  ASSERT_TRUE(store_->hasResult(id("far")));
  const auto tree = Tree::create(*store_->result(id("far")), 0);
  EXPECT_EQ(readIn(*tree, "far"), "far");
  EXPECT_EQ(readIn(*tree, "a/file"), "one");
}

TEST_P(UnreadTest, ItCanBePinned) {
  EXPECT_TRUE(ask("pin x").value("ok", false));
  EXPECT_EQ(ask("delete x").value("errno", ""), "EBUSY");
  EXPECT_EQ(ask("delete base --recursive").value("errno", ""), "EBUSY");
  isWholeAtTheNextStart();
}

TEST_P(UnreadTest, WhoAsksForItGetsItDeleted) {
  EXPECT_TRUE(ask("delete x").value("ok", false));
  EXPECT_EQ(ask("delete x").value("errno", ""), "ENOENT");
  ASSERT_TRUE(store_->completeDeletes());
  EXPECT_EQ(testing::entries(path("result-tmp")), 0U);
  EXPECT_EQ(store_->info(id("x")).error().code, ENOENT);
  close();
  baseIs(0755);
  open();
  EXPECT_FALSE(store_->hasResult(id("x")));
  EXPECT_TRUE(build("x", "base", [](Editor& e) { e.write("top", "another"); }));
}

TEST_P(UnreadTest, WhoDeletesItsBaseRecursivelyDeletesIt) {
  EXPECT_TRUE(ask("delete base --recursive").value("ok", false));
  EXPECT_FALSE(exists(path("result/base")));
  EXPECT_EQ(store_->info(id("x")).error().code, ENOENT);
  EXPECT_TRUE(build("x", {}, [](Editor& e) { e.write("top", "another"); }));
}

INSTANTIATE_TEST_SUITE_P(Modes, UnreadTest, ::testing::Values(Mode::copy, Mode::hardlink),
                         [](const auto& test) { return modeName(test.param); });

}  // namespace
}  // namespace kilnfs
