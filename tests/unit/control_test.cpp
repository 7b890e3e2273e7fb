// The control file on a real store, without a mount: what is written, what is answered.
#include "store/control/control.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <future>

#include "tests/support/control_fixture.h"

namespace kilnfs {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::ControlTest;
using testing::exists;
using testing::Open;
using testing::readFile;
using testing::writeFile;

TEST_F(ControlTest, ReadingBeforeWritingGivesTheHelp) {
  Open file = open();
  EXPECT_EQ(file.readAll(), Control::help());
  EXPECT_EQ(file.ask("status")["ok"], true) << "writing after it works";
}

TEST_F(ControlTest, ABuildThatIsWaitedFor) {
  Open file = open();
  EXPECT_EQ(file.write("build a --wait -c 'echo hi >f'\n"), 0);
  EXPECT_EQ(json::parse(file.readAll()),
            json::parse(R"({"ok":true,"id":"a","state":"saved","cached":false,"exit":0})"));
  EXPECT_EQ(readFile(dir_ / "store/result/a/f"), "hi\n");
  const json again = file.ask("build a --wait -c 'echo hi >f'");
  EXPECT_EQ(again["cached"], true);
  EXPECT_EQ(again["state"], "saved");
}

TEST_F(ControlTest, ABuildIsQueuedAndWaitedForLater) {
  Open file = open();
  const json queued = file.ask("build a -c '" + gate("a") + "'");
  EXPECT_EQ(queued["ok"], true);
  EXPECT_EQ(queued["state"], "queued");
  EXPECT_FALSE(queued.contains("exit"));
  awaitGate("a");
  EXPECT_EQ(file.ask("build a -c x")["state"], "running");
  EXPECT_EQ(file.ask("delete a")["errno"], "EBUSY");
  openGate("a");
  EXPECT_EQ(file.ask("wait a")["state"], "saved");
}

TEST_F(ControlTest, HowABuildEndsIsTheErrnoOfTheWrite) {
  Open file = open();
  EXPECT_EQ(file.write("build a --wait -c 'exit 3'"), EIO);
  json answer = json::parse(file.readAll());
  EXPECT_EQ(answer["ok"], false);
  EXPECT_EQ(answer["errno"], "EIO");
  EXPECT_EQ(answer["id"], "a");
  EXPECT_EQ(answer["state"], "failed");
  EXPECT_EQ(answer["exit"], 3);
  EXPECT_EQ(file.write("wait a"), EIO);
  file.readAll();
  EXPECT_EQ(file.write("build b --timeout 100ms --wait -- sleep 1000"), ETIMEDOUT);
  file.readAll();
  answer = file.ask("wait b");
  EXPECT_EQ(answer["state"], "timed-out");
  EXPECT_EQ(file.write("build c -c '" + gate("c") + "'\ncancel c\nwait c"), ECANCELED);
  EXPECT_EQ(file.write("build d --wait -c 'kill -9 $$'"), EIO);
}

TEST_F(ControlTest, SeveralCommandsInOneWriteUpToTheFirstThatFails) {
  Open file = open();
  EXPECT_EQ(file.write("# first\nbuild a --wait -c true\n\ndelete a\ndelete a\nbuild b -c true\n"),
            ENOENT);
  const std::string text = file.readAll();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << text;
  EXPECT_FALSE(builds_->status(*Id::parse("b")));
}

TEST_F(ControlTest, OnlyALogThatSaysSomethingIsReferredTo) {
  Open file = open();
  EXPECT_NE(file.ask("build a --wait -c 'echo text; false'")["message"].dump().find("see logs/a"),
            std::string::npos);
  EXPECT_EQ(file.write("build par -c '" + gate("par") + "; false'\n"), 0);
  file.readAll();
  awaitGate("par");
  auto child = std::async(std::launch::async,
                          [&] { return open().ask("build chi --base par --wait -- true").dump(); });
  while (builds_->underWay(*Id::parse("chi")) == false) std::this_thread::yield();
  openGate("par");
  const std::string answer = child.get();
  EXPECT_NE(answer.find("its base par was not built"), std::string::npos) << answer;
  EXPECT_EQ(answer.find("see logs"), std::string::npos) << answer;
}

TEST_F(ControlTest, AnOpenQuoteExecutesNothing) {
  Open file = open();
  EXPECT_EQ(file.write("build a -c true\nbuild b -c 'true\n"), EINVAL);
  EXPECT_FALSE(builds_->status(*Id::parse("a")));
  EXPECT_EQ(json::parse(file.readAll())["errno"], "EINVAL");
}

TEST_F(ControlTest, NoiseIsRefusedAndTheFileStaysUsable) {
  Open file = open();
  EXPECT_EQ(file.write(std::string(1 << 20, '\xfe')), E2BIG);
  EXPECT_EQ(json::parse(file.readAll())["errno"], "E2BIG");
  EXPECT_EQ(file.write(std::string("a\0b", 3)), EINVAL);
  EXPECT_EQ(file.write(std::string(60000, '\xfe')), EINVAL);
  EXPECT_EQ(file.write(std::string(1, '\n')), 0);
  EXPECT_EQ(file.write(""), 0);
  file.readAll();
  EXPECT_EQ(file.ask("status")["ok"], true);
}

TEST_F(ControlTest, NamesOfWhatIsThereOrNot) {
  Open file = open();
  EXPECT_EQ(file.ask("build a --base none -c true")["errno"], "ENOENT");
  EXPECT_EQ(file.ask("build a/b -c true")["errno"], "EINVAL");
  EXPECT_EQ(file.ask("wait none")["errno"], "ENOENT");
  EXPECT_EQ(file.ask("follow none")["errno"], "ENOENT");
  EXPECT_EQ(file.ask("cancel none")["errno"], "ENOENT");
  EXPECT_EQ(file.ask("delete none")["errno"], "ENOENT");
  EXPECT_EQ(file.ask("delete-cache none")["errno"], "ENOENT");
  EXPECT_EQ(file.ask("release none.1")["errno"], "ENOENT");
  EXPECT_EQ(file.ask("export none x")["errno"], "ENOENT");
  EXPECT_EQ(file.ask("import a none")["errno"], "ENOENT");
  EXPECT_EQ(file.ask("build x --sandbox root -c a")["errno"], "EOPNOTSUPP");
  EXPECT_EQ(file.ask("frobnicate")["errno"], "EINVAL");
  EXPECT_NE(file.ask("help")["help"].get<std::string>().find("build [ID]"), std::string::npos);
}

TEST_F(ControlTest, WaitingForSeveral) {
  Open file = open();
  file.write("build a -c true\nbuild b -c false\nbuild c -c true\n");
  file.readAll();
  const json answer = file.ask("wait a b c");
  EXPECT_EQ(answer["errno"], "EIO");
  ASSERT_EQ(answer["builds"].size(), 3U);
  EXPECT_EQ(answer["builds"][1]["state"], "failed");
  EXPECT_EQ(answer["builds"][2]["state"], "saved");
}

TEST_F(ControlTest, DependentsKeepABase) {
  Open file = open();
  file.write("build a --wait -c true\nbuild b --base a --wait -c true\n");
  file.readAll();
  EXPECT_EQ(file.ask("delete a")["errno"], "ENOTEMPTY");
  EXPECT_EQ(file.ask("delete a --recursive")["ok"], true);
  EXPECT_EQ(file.ask("complete-deletes")["ok"], true);
  EXPECT_FALSE(store_->hasResult(*Id::parse("b")));
}

TEST_F(ControlTest, AWriteThatIsInterruptedEndsTheBuild) {
  Open file = open();
  auto written = std::async(std::launch::async,
                            [&] { return file.write("build a --wait -c '" + gate("a") + "'"); });
  awaitGate("a");
  file.interrupt().raise();
  EXPECT_EQ(written.get(), EINTR);
  Open other = open();
  EXPECT_EQ(other.ask("wait a")["state"], "cancelled");
}

// -- follow

TEST_F(ControlTest, FollowGivesTheLogFromItsFirstByteToTheEndOfTheBuild) {
  Open file = open();
  file.write("build a -c 'echo one; " + gate("a") + "; echo two; printf end'\nfollow a\n");
  std::string text = file.read();
  EXPECT_EQ(json::parse(text)["id"], "a");
  std::string log;
  while (log.size() < 4) log += file.read();
  EXPECT_EQ(log, "one\n");
  auto rest = std::async(std::launch::async, [&] { return file.readAll(); });
  awaitGate("a");
  openGate("a");
  EXPECT_EQ(rest.get(), "two\nend");
  EXPECT_EQ(file.ask("status")["ok"], true) << "the file is usable afterwards";
}

TEST_F(ControlTest, FollowAfterTheEnd) {
  Open file = open();
  EXPECT_EQ(file.write("build a --wait -c 'echo x; exit 1'"), EIO);
  file.readAll();
  EXPECT_EQ(file.write("follow a"), 0);
  EXPECT_EQ(file.readAll(), "x\nkilnfs: the command exited with status 1\n");
}

TEST_F(ControlTest, FollowNeverShowsTheLogOfAnEarlierBuild) {
  Open file = open();
  file.write("build a --wait -c 'echo old; exit 1'");
  file.readAll();
  file.write("build r -c '" + gate("r") + "'\nbuild a --base r -c 'echo new'\n");
  file.readAll();
  file.write("follow a");
  auto log = std::async(std::launch::async, [&] { return file.readAll(); });
  awaitGate("r");
  openGate("r");
  EXPECT_EQ(log.get(), "new\n");
}

TEST_F(ControlTest, FollowGoesOnWithARetry) {
  const std::string flag = dir_ / "flag";
  Open file = open();
  file.write("build a --retry -c '" + gate("a") + "; if test -e " + flag +
             "; then echo 2; else touch " + flag + "; echo 1; exit 1; fi'");
  file.readAll();
  file.write("follow a");
  auto log = std::async(std::launch::async, [&] { return file.readAll(); });
  awaitGate("a");
  openGate("a");
  const std::string text = log.get();
  EXPECT_EQ(text.substr(text.size() - 2), "2\n");
}

/// How many descriptors of that kind this process has.
size_t openOf(const std::string& kind) {
  size_t count = 0;
  std::error_code gone;
  for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
    count += std::filesystem::read_symlink(fd, gone).string().find(kind) != std::string::npos;
  }
  return count;
}

TEST_F(ControlTest, FollowingNeedsNoDescriptorsThatAreScarce) {
  Open file = open();
  file.write("build a -c 'echo one; " + gate("a") + "'\nfollow a\n");
  awaitGate("a");
  const size_t before = openOf("eventfd");
  auto text = std::async(std::launch::async, [&] { return file.readAll(); });
  for (int i = 0; i < 20; ++i) open().ask("build b" + std::to_string(i) + " --wait -c true");
  // The last build's own may be there a moment longer than its answer.
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (openOf("eventfd") > before && std::chrono::steady_clock::now() < patience) {
    std::this_thread::sleep_for(milliseconds(2));
  }
  EXPECT_EQ(openOf("eventfd"), before);
  EXPECT_EQ(openOf("inotify"), 0U);
  openGate("a");
  EXPECT_NE(text.get().find("one\n"), std::string::npos);
}

TEST_F(ControlTest, FollowingIsInterrupted) {
  Open file = open();
  file.write("build a -c '" + gate("a") + "'");
  file.readAll();
  awaitGate("a");
  Interrupt interrupt;
  ASSERT_TRUE(file.session().write(0, "follow a", me_, interrupt));
  auto read =
      std::async(std::launch::async, [&] { return file.session().read(8, 100, interrupt); });
  interrupt.raise();
  EXPECT_EQ(read.get().error().code, EINTR);
  openGate("a");
}

// -- leases

TEST_F(ControlTest, ALeaseLastsAsLongAsTheFileIsOpen) {
  {
    Open file = open();
    const json lease = file.ask("lease npm");
    EXPECT_EQ(lease["path"], "leases/" + lease["lease"].get<std::string>());
    EXPECT_TRUE(lease.contains("generation"));
    EXPECT_EQ(leases_->list().size(), 1U);
    EXPECT_EQ(open().ask("delete-cache npm")["errno"], "EBUSY");
  }
  while (!leases_->list().empty()) std::this_thread::sleep_for(milliseconds(2));
}

TEST_F(ControlTest, ATagLastsUntilItIsReleased) {
  std::string name;
  {
    Open file = open();
    name = file.ask("lease npm --as ci-17")["lease"];
  }
  Open file = open();
  EXPECT_EQ(file.ask("lease npm --as ci-17")["lease"], name);
  auto workspace = leases_->workspace(name, me_.uid);
  ASSERT_TRUE(workspace);
  writeFile((*workspace)->path() + "/f", "1");
  (*workspace)->markChanged();
  const json released = file.ask("release " + name);
  EXPECT_EQ(released["outcome"], "published");
  EXPECT_EQ(released["generation"], 1);
  EXPECT_EQ(file.ask("release " + name)["errno"], "ENOENT");
}

// -- reports

TEST_F(ControlTest, PinPruneAndVerify) {
  Open file = open();
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_EQ(file.write("build " + std::string(name) + " --wait -c 'echo 1 >f'\n"), 0);
  }
  ASSERT_EQ(file.write("complete-deletes\n"), 0);
  file.readAll();
  EXPECT_EQ(file.ask("pin a"), json::parse(R"({"ok":true,"id":"a"})"));
  EXPECT_EQ(file.ask("pin x")["errno"], "ENOENT");
  EXPECT_EQ(file.ask("delete a")["errno"], "EBUSY");
  EXPECT_EQ(file.ask("status")["pins"], json::array({"a"}));
  const json dry = file.ask("prune --max 0 --dry-run");
  ASSERT_EQ(dry["results"].size(), 3U);
  EXPECT_EQ(dry["results"][0]["id"], "a");
  EXPECT_EQ(dry["results"][0]["action"], "kept");
  EXPECT_EQ(dry["results"][0]["why"], "it is pinned");
  EXPECT_EQ(dry["results"][1]["action"], "would-delete");
  EXPECT_EQ(file.ask("prune --max 2")["results"][1]["action"], "deleted");
  EXPECT_EQ(file.ask("prune")["errno"], "EINVAL");
  json verified = file.ask("verify");
  EXPECT_EQ(verified["ok"], true);
  ASSERT_EQ(verified["results"].size(), 2U);
  EXPECT_EQ(verified["results"][1]["action"], "ok");
  writeFile(dir_ / "store/result/c/f", "2\n");
  verified = file.ask("verify c a");
  EXPECT_EQ(verified["errno"], "EIO");
  EXPECT_EQ(verified["results"][0]["action"], "differs");
  EXPECT_EQ(verified["results"][1]["action"], "ok");
  verified = file.ask("verify --repair");
  EXPECT_EQ(verified["ok"], true) << "nothing is left to be done";
  EXPECT_EQ(verified["results"][1]["repaired"], true);
  EXPECT_FALSE(store_->hasResult(*Id::parse("c")));
  EXPECT_EQ(file.ask("unpin a")["ok"], true);
}

TEST_F(ControlTest, StatusIsOneObject) {
  Open file = open();
  file.write("build a -c '" + gate("a") + "'\nbuild b --base a -c true\nlease npm\n");
  file.readAll();
  awaitGate("a");
  const json status = file.ask("status");
  EXPECT_EQ(status["builds"][0]["id"], "a");
  EXPECT_EQ(status["builds"][0]["state"], "running");
  EXPECT_EQ(status["queue"][0]["id"], "b");
  EXPECT_EQ(status["leases"][0]["cache"], "npm");
  EXPECT_TRUE(status["caches"].is_array());
  EXPECT_TRUE(status["materializer"].is_object());
  EXPECT_GT(status["space"]["free_bytes"], 0);
  openGate("a");
}

TEST_F(ControlTest, ErrorsAreRecordedOneALine) {
  Open file = open();
  file.write("build 'a\nb' -c true");
  file.write("delete none");
  control_->recordError(me_, "rmdir results/\n", Error{ENOTEMPTY, "has dependents"});
  const std::string text = control_->errors();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << text;
  EXPECT_NE(text.find("ENOENT: "), std::string::npos);
  EXPECT_NE(text.find("'rmdir results/\\x0a': ENOTEMPTY: has dependents\n"), std::string::npos);
  for (int i = 0; i < 300; ++i) file.write("delete none" + std::to_string(i));
  const std::string later = control_->errors();
  EXPECT_EQ(std::count(later.begin(), later.end(), '\n'), 200);
}

TEST_F(ControlTest, ErrorsShowNoValueOfTheEnvironment) {
  Open file = open();
  const std::string tooLong(ControlSession::kLongestWrite, 'x');
  for (const std::string& line : {
           std::string("build sec --env TOKEN=s3cret --env=B==s3cret --wait -- false"),
           std::string("build sec --env 'TOKEN=s3cret and' --no-such-option -- false"),
           std::string("build sec \"--env\" TOKEN=\"s3cret\" --base -- --env B=s3cret x"),
           std::string("build sec --env =s3cret -- true"),
           std::string("delete sec --env=TOKEN=s3cret"),
           std::string("build sec --env 'TOKEN=s3cret"),
           std::string("build --env=TOKEN=s3cret \\"),
           std::string("s3cret' -- true"),
           std::string("status\nbuild sec --env TOKEN=s3cret \0", 37),
           "build sec --env TOKEN=s3cret " + tooLong,
       }) {
    EXPECT_NE(file.write(line), 0) << line;
  }
  std::string cut = "build sec --env TOKEN=s3cret ";
  cut.resize(ControlSession::kBlock, 'x');
  EXPECT_EQ(open().write(cut), 0);
  const std::string text = control_->errors();
  EXPECT_EQ(text.find("s3cret"), std::string::npos) << text;
  for (const char* part : {"build sec --env TOKEN=... --env=B=... --wait -- false':",
                           "'build sec ...':", "'build ...':", "'...':", "'status ...':"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

TEST_F(ControlTest, MetricsCount) {
  Open file = open();
  file.write("build a --wait -c true\nbuild a --wait -c true\n");
  file.write("build b --wait -c false");
  file.write("lease npm --as t");
  const std::string text = control_->metrics();
  for (const char* line :
       {"kilnfs_builds_total{state=\"saved\"} 1\n", "kilnfs_builds_total{state=\"failed\"} 1\n",
        "kilnfs_builds_cached_total 1\n", "kilnfs_builds_running 0\n", "kilnfs_leases_active 1\n",
        "kilnfs_commands_total 4\n", "kilnfs_commands_failed_total 1\n",
        "# TYPE kilnfs_uptime_seconds gauge\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
}

}  // namespace
}  // namespace kilnfs
