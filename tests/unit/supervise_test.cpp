// kiln-supervise and its caller: outcomes are exact, nothing survives, rights are dropped.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "store/build/supervised.h"
#include "tests/support/sanitized.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using std::chrono::milliseconds;
using Clock = Supervised::Clock;

using testing::TempDir;

class SuperviseTest : public ::testing::Test {
 protected:
  SuperviseTest() : output_(::memfd_create("output", MFD_CLOEXEC)) {}

  Supervised::Spec spec(const std::string& shell) {
    Supervised::Spec out;
    out.argv = {"/bin/sh", "-c", shell};
    out.account.uid = ::geteuid();
    out.account.gid = ::getegid();
    out.env = cleanEnvironment(out.account, {});
    out.dir = dir_.path();
    out.outputFd = output_.get();
    return out;
  }

  Supervised::End run(const Supervised::Spec& s, std::optional<milliseconds> timeout = {}) {
    auto command = Supervised::start(supervisors_, s);
    EXPECT_TRUE(command) << (command ? "" : command.error().message);
    std::optional<Clock::time_point> deadline;
    if (timeout) deadline = Clock::now() + *timeout;
    return command->run(interrupt_, deadline);
  }

  std::string output() {
    std::string out(1 << 20, '\0');
    const ssize_t n = ::pread(output_.get(), out.data(), out.size(), 0);
    out.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return out;
  }

  /// Waits until the command has written `text`.
  void awaitOutput(const std::string& text) {
    while (output().find(text) == std::string::npos) std::this_thread::sleep_for(milliseconds(5));
  }

  /// A process that is neither gone nor a zombie.
  static bool alive(pid_t pid) {
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::string line;
    if (!std::getline(stat, line)) return false;
    const size_t end = line.rfind(')');
    return end != std::string::npos && line[end + 2] != 'Z' && line[end + 2] != 'X';
  }

  TempDir dir_;
  UniqueFd output_;
  Interrupt interrupt_;
  Supervisors supervisors_{KILN_SUPERVISE, "a test"};
};

TEST_F(SuperviseTest, ExitStatusIsExact) {
  for (const int status : {0, 1, 3, 127, 255}) {
    const auto end = run(spec("exit " + std::to_string(status)));
    EXPECT_EQ(end.exit, status);
    EXPECT_FALSE(end.signal || end.error || end.interrupted || end.timedOut);
    EXPECT_EQ(end.ok(), status == 0);
  }
}

TEST_F(SuperviseTest, SignalIsExact) {
  for (const int number : {SIGKILL, SIGTERM, SIGSEGV, SIGINT}) {
    struct rlimit none = {0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    const auto end = run(spec("kill -" + std::to_string(number) + " $$"));
    EXPECT_EQ(end.signal, number);
    EXPECT_FALSE(end.exit || end.error || end.interrupted);
  }
}

TEST_F(SuperviseTest, WhatCannotRunIsAnErrorNotAStatus) {
  auto s = spec("");
  s.argv = {"no-such-program-here"};
  auto end = run(s);
  ASSERT_TRUE(end.error);
  EXPECT_EQ(end.error->code, ENOENT);
  EXPECT_NE(end.error->message.find("no-such-program-here"), std::string::npos);

  s = spec("exit 0");
  s.dir = dir_.path() + "/absent";
  end = run(s);
  ASSERT_TRUE(end.error);
  EXPECT_EQ(end.error->code, ENOENT);
  EXPECT_FALSE(end.exit);
}

TEST_F(SuperviseTest, OutputIsExactlyTheCommands) {
  EXPECT_TRUE(run(spec("echo out; echo err >&2; printf x")).ok());
  EXPECT_EQ(output(), "out\nerr\nx");
}

TEST_F(SuperviseTest, MuchOutputArrivesWhole) {
  EXPECT_TRUE(run(spec("head -c 700000 /dev/zero | tr '\\0' a; echo end")).ok());
  EXPECT_EQ(output(), std::string(700000, 'a') + "end\n");
}

TEST_F(SuperviseTest, AFullLogEndsTheCommandWithAnError) {
  UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  auto s = spec("while :; do echo more; done");
  s.outputFd = full.get();
  const auto end = run(s);
  ASSERT_TRUE(end.error);
  EXPECT_EQ(end.error->code, ENOSPC);
}

TEST_F(SuperviseTest, CleanSurroundings) {
  EXPECT_TRUE(run(spec("umask; pwd; env | sort; cat; trap; ls /proc/self/fd | tr '\\n' ' '")).ok());
  const std::string text = output();
  EXPECT_EQ(text.find("0022\n" + dir_.path() + "\n"), 0U) << text;
  EXPECT_NE(text.find("\nLANG=C.UTF-8\n"), std::string::npos);
  EXPECT_EQ(text.find("KILN"), std::string::npos);
  EXPECT_NE(text.find("\n0 1 2 3 "), std::string::npos) << "3 is ls's own: " << text;
  EXPECT_EQ(text.find("4 "), std::string::npos) << text;
}

TEST_F(SuperviseTest, SignalsAreReset) {
  EXPECT_TRUE(run(spec("grep -E '^Sig(Blk|Ign)' /proc/self/status")).ok());
  EXPECT_EQ(output(), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST_F(SuperviseTest, EnvironmentGoesToTheCommandOnly) {
  auto s =
      spec("cat /proc/$PPID/environ | tr '\\0' '\\n'; echo; tr '\\0' ' ' </proc/$PPID/cmdline");
  s.env.push_back("SECRET=hush");
  EXPECT_TRUE(run(s).ok());
  EXPECT_EQ(output().find("hush"), std::string::npos) << output();
}

TEST_F(SuperviseTest, EscapeesDie) {
  const std::string pids = dir_.path() + "/pids";
  EXPECT_TRUE(
      run(spec("setsid sleep 1000 & echo $! >>pids\n"
               "(setsid sh -c 'echo $$ >>pids; (trap \"\" TERM HUP; sleep 1000) & echo $! >>pids;"
               " sleep 1000' &) & wait $!\n"
               "nohup sleep 1000 & echo $! >>pids\n"
               "while test $(wc -l <pids) -lt 4; do sleep 0.01; done; exit 0"))
          .ok());
  std::ifstream in(pids);
  int count = 0;
  for (pid_t pid = 0; in >> pid; ++count) EXPECT_FALSE(alive(pid)) << pid;
  EXPECT_EQ(count, 4);
}

TEST_F(SuperviseTest, TheDeadlineEndsItTermFirst) {
  const auto end = run(spec("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done"),
                       milliseconds(300));
  EXPECT_TRUE(end.timedOut);
  EXPECT_FALSE(end.error);
  EXPECT_NE(output().find("bye\n"), std::string::npos);
}

TEST_F(SuperviseTest, WhatIgnoresTermIsKilledAfterTheGrace) {
  auto s = spec("trap '' TERM; echo up; while :; do sleep 0.01; done");
  s.grace = milliseconds(100);
  const auto end = run(s, milliseconds(200));
  EXPECT_TRUE(end.timedOut);
  EXPECT_EQ(end.signal, SIGKILL);
}

TEST_F(SuperviseTest, AStoppedCommandCanBeEnded) {
  std::thread ender([this] {
    awaitOutput("up");
    interrupt_.raise();
  });
  const auto end = run(spec("echo up; kill -STOP $$; echo never"));
  ender.join();
  EXPECT_TRUE(end.interrupted);
  EXPECT_EQ(end.signal, SIGTERM);
}

TEST_F(SuperviseTest, InterruptedBeforeItRanItNeverRuns) {
  interrupt_.raise();
  const auto end = run(spec("echo ran"));
  EXPECT_TRUE(end.interrupted);
  EXPECT_EQ(output(), "");
}

TEST_F(SuperviseTest, DroppedWithoutRunningItNeverRuns) {
  {
    auto command = Supervised::start(supervisors_, spec("echo ran"));
    ASSERT_TRUE(command);
  }
  EXPECT_EQ(output(), "");
}

TEST_F(SuperviseTest, DiesWithADaemonThatIsKilled) {
  const pid_t daemon = ::fork();
  if (daemon == 0) {
    auto command =
        Supervised::start(supervisors_, spec("setsid sleep 1000 & echo $! $$; sleep 1000"));
    if (command) command->run(interrupt_, {});
    ::_exit(0);
  }
  awaitOutput("\n");
  pid_t first = 0;
  pid_t second = 0;
  ASSERT_EQ(std::sscanf(output().c_str(), "%d %d", &first, &second), 2);
  EXPECT_TRUE(alive(first) && alive(second));
  ::kill(daemon, SIGKILL);
  ::waitpid(daemon, nullptr, 0);
  while (alive(first) || alive(second)) std::this_thread::sleep_for(milliseconds(5));
}

TEST_F(SuperviseTest, WhoForksThemIsReplacedWhenKilled) {
  const std::string forker =
      "read -r _ _ _ parent _ </proc/$PPID/stat; echo $parent; kill -9 $parent";
  EXPECT_TRUE(run(spec(forker)).ok());  // and the command's own end is still known
  EXPECT_TRUE(run(spec(forker)).ok());
  std::ifstream in("/proc/self/fd/" + std::to_string(output_.get()));
  pid_t first = 0;
  pid_t second = 0;
  ASSERT_TRUE(in >> first >> second);
  EXPECT_NE(first, second);
  EXPECT_NE(first, ::getpid());
}

TEST_F(SuperviseTest, ManyAtATimeAreKeptApart) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this, i] {
      Interrupt interrupt;
      for (int n = 0; n < 20; ++n) {
        auto command = Supervised::start(supervisors_, spec("exit " + std::to_string(i)));
        ASSERT_TRUE(command);
        EXPECT_EQ(command->run(interrupt, {}).exit, i);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(SuperviseTest, CredentialsAreExact) {
  if (::geteuid() != 0) GTEST_SKIP() << "declared: needs root";
  auto s = spec(
      "grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb)):' /proc/self/status; echo x >/dev/stdout;"
      "cat </etc/shadow");
  s.account.uid = 12345;
  s.account.gid = 23456;
  s.account.groups = {7, 34567};
  ::chmod(dir_.path().c_str(), 0755);
  const auto end = run(s);
  EXPECT_NE(end.exit, 0);
  const std::string text = output();
  EXPECT_NE(text.find("Uid:\t12345\t12345\t12345\t12345\nGid:\t23456\t23456\t23456\t23456\n"
                      "Groups:\t7 34567 \n"),
            std::string::npos)
      << text;
  for (const char* set : {"Inh", "Prm", "Eff", "Amb"}) {
    EXPECT_NE(text.find(std::string("Cap") + set + ":\t0000000000000000\n"), std::string::npos)
        << text;
  }
  EXPECT_NE(text.find("\nx\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("root:"), std::string::npos) << text;
}

TEST_F(SuperviseTest, NoGroupsMeansNone) {
  if (::geteuid() != 0) GTEST_SKIP() << "declared: needs root";
  auto s = spec("grep ^Groups: /proc/self/status");
  s.account.uid = 12345;
  s.account.gid = 23456;
  ::chmod(dir_.path().c_str(), 0755);
  EXPECT_TRUE(run(s).ok());
  EXPECT_EQ(output(), "Groups:\t \n");
}

TEST_F(SuperviseTest, LinksAreThereOnlyWhileItRuns) {
  auto s = spec("readlink a/b/cache; readlink x; mkdir made");
  ::mkdir((dir_.path() + "/x").c_str(), 0755);  // empty: gives way
  s.links = {{"a/b/cache", "/somewhere/else"}, {"x", "/y"}};
  EXPECT_TRUE(run(s).ok());
  EXPECT_EQ(output(), "/somewhere/else\n/y\n");
  struct stat st = {};
  EXPECT_NE(::lstat((dir_.path() + "/a/b/cache").c_str(), &st), 0);
  EXPECT_NE(::lstat((dir_.path() + "/x").c_str(), &st), 0);
  EXPECT_EQ(::lstat((dir_.path() + "/made").c_str(), &st), 0);
}

TEST_F(SuperviseTest, LinksDoNotReplaceWhatIsThere) {
  ::mkdir((dir_.path() + "/x").c_str(), 0755);
  std::ofstream(dir_.path() + "/x/file") << "kept";
  auto s = spec("echo ran");
  s.links = {{"x", "/y"}};
  const auto end = run(s);
  ASSERT_TRUE(end.error);
  EXPECT_EQ(end.error->code, EEXIST);
  EXPECT_EQ(output(), "");
  EXPECT_TRUE(std::ifstream(dir_.path() + "/x/file").good());
}

TEST_F(SuperviseTest, LinksNeverLeaveTheDirectory) {
  TempDir outside;
  ASSERT_EQ(::symlink(outside.path().c_str(), (dir_.path() + "/way").c_str()), 0);
  for (const char* path : {"way/x", "../x", "/x", "a/../../x"}) {
    auto s = spec("echo ran");
    s.links = {{path, "/y"}};
    const auto end = run(s);
    EXPECT_TRUE(end.error) << path;
  }
  auto s = spec("echo ran");
  s.below = "way";
  EXPECT_TRUE(run(s).error);
  s = spec("echo ran");
  s.plain = "way";
  EXPECT_TRUE(run(s).error);
  EXPECT_EQ(output(), "");
  EXPECT_EQ(testing::entries(outside.path()), 0U);
}

// Whoever could be started can be ended.
TEST_F(SuperviseTest, NeedsNoFurtherDescriptorToBeInterrupted) {
  if (testing::kSanitizerNeedsDescriptors) GTEST_SKIP() << "declared: leaves no descriptor free";
  auto command = Supervised::start(supervisors_, spec("exec sleep 60"));
  ASSERT_TRUE(command) << command.error().message;
  struct rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const struct rlimit none = {2, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  std::thread other([this] { interrupt_.raise(); });
  const auto end = command->run(interrupt_, Clock::now() + std::chrono::seconds(20));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  other.join();
  EXPECT_TRUE(end.interrupted);
  EXPECT_FALSE(end.timedOut);
}

TEST_F(SuperviseTest, StartsInADirectoryMadeBelow) {
  auto s = spec("pwd");
  s.below = "new/deep";
  EXPECT_TRUE(run(s).ok());
  EXPECT_EQ(output(), dir_.path() + "/new/deep\n");
}

}  // namespace
}  // namespace kilnfs
