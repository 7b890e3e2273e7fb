// The lines of packaging/SECURITY.md that no other test shows.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <filesystem>
#include <sstream>

#include "store/base/fd.h"
#include "store/base/fd_message.h"
#include "store/store.h"
#include "tests/support/native_builds.h"

namespace kilnfs::testing {
namespace {

constexpr unsigned kUser = 65534;

/// A set of capabilities of a process or thread, as /proc tells it: "CapEff" and others.
uint64_t capabilities(const std::string& statusFile, const std::string& set) {
  std::istringstream in(readFile(statusFile));
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(set + ":")) return std::stoull(line.substr(set.size() + 1), nullptr, 16);
  }
  ADD_FAILURE() << statusFile << " has no " << set;
  return 0;
}

constexpr uint64_t bits(std::initializer_list<int> capabilities) {
  uint64_t out = 0;
  for (const int one : capabilities) out |= uint64_t{1} << one;
  return out;
}

mode_t modeOf(const std::string& path) {
  struct stat st = {};
  EXPECT_EQ(::stat(path.c_str(), &st), 0) << path;
  return st.st_mode & 07777;
}

class Security : public MountedStore {
 protected:
  void SetUp() override {
    MountedStore::SetUp();
    start({"control_mode=0666"});
  }
  /// What a build of that user's says.
  std::string built(const std::string& id, const std::string& script) {
    writeFile(scratch() + "/line", "build " + id + " --wait -c '" + script + "'\n");
    const Ran ran = shell("cat " + scratch() + "/line > control", mnt(), kUser);
    EXPECT_EQ(ran.status, 0) << ran.output << readFile(mnt("errors"));
    return readFile(store() + "/log/" + id);
  }
  /// A build makes a mount of its own, and hands out what `what` opens by it.
  UniqueFd handedOutBy(const std::string& id, const std::string& base, const std::string& what) {
    writeFile(scratch() + "/give.py", R"py(
import ctypes, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
newuser, newns = 0x10000000, 0x20000
if ctypes.CDLL(None).unshare(newuser | newns) != 0: sys.exit('unshare')
open('hello', 'w').write('right')
socket.send_fds(s, [b'x'], [)py" + what + "])\n");
    const std::string at = scratch() + "/" + id;
    const UniqueFd server(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    struct sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    at.copy(name.sun_path, sizeof name.sun_path - 1);
    EXPECT_EQ(::bind(server.get(), reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
    EXPECT_EQ(::listen(server.get(), 1), 0);
    EXPECT_EQ(::chmod(at.c_str(), 0777), 0);
    built(id + " " + base, "python3 " + scratch() + "/give.py " + at);
    const UniqueFd taken(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char byte = 0;
    int handed = -1;
    size_t count = 1;
    EXPECT_EQ(receiveWithFds(taken.get(), &byte, 1, &handed, count), 1);
    EXPECT_EQ(count, 1U);
    return UniqueFd(handed);
  }
  void expectRight(const std::string& id) {
    EXPECT_EQ(readFile(mnt("results/" + id + "/hello")), "right") << id;
    EXPECT_EQ(shell("echo complete-deletes > control", mnt()).status, 0);
    EXPECT_EQ(readFile(store() + "/result/" + id + "/hello"), "right") << id;
  }
};

TEST_F(Security, ABuildHasNoCapability) {
  EXPECT_EQ(built("a", "grep -E \"^Cap(Inh|Prm|Eff|Amb)\" /proc/self/status | tr -s \"\\t\" \" \""),
            "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n"
            "CapAmb: 0000000000000000\n");
  EXPECT_EQ(built("b", "id -u; id -g; id -G"), "65534\n65534\n65534\n");
}

TEST_F(Security, TheDaemonKeepsTheCapabilitiesThatItUses) {
  const uint64_t used = bits({CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER,
                              CAP_FSETID, CAP_MKNOD, CAP_SETFCAP, CAP_LEASE, CAP_SETGID, CAP_SETUID,
                              CAP_SETPCAP, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYS_RESOURCE});
  const uint64_t ours = capabilities("/proc/self/status", "CapPrm");
  ASSERT_NE(ours & ~used, 0U) << "the tests' own rights are too few to show anything";
  built("a", "true");  // threads are there
  const std::string tasks = "/proc/" + std::to_string(daemon_->pid()) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks)) {
    const std::string status = task.path().string() + "/status";
    EXPECT_EQ(capabilities(status, "CapPrm"), ours & used) << status;
    EXPECT_EQ(capabilities(status, "CapEff") & ~used, 0U) << status;
    // What it starts as root has all again.
    EXPECT_EQ(capabilities(status, "CapBnd"), capabilities("/proc/self/status", "CapBnd"));
  }
}

TEST_F(Security, ABuildOfRootsHasAllOfRootsCapabilities) {
  writeFile(scratch() + "/line", "build a --wait -c 'cat /proc/self/status'\n");
  ASSERT_EQ(shell("cat " + scratch() + "/line > control", mnt()).status, 0);
  // As a program that root runs elsewhere.
  writeFile(scratch() + "/status", shell("cat /proc/self/status").output);
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_EQ(capabilities(store() + "/log/a", set), capabilities(scratch() + "/status", set))
        << set;
  }
}

TEST_F(Security, ABuildInheritsNoDescriptorAndNoTerminal) {
  // 3 is the directory that ls itself reads.
  EXPECT_EQ(built("a", "ls /proc/self/fd; readlink /proc/self/fd/0"), "0\n1\n2\n3\n/dev/null\n");
  EXPECT_EQ(built("b", "if (: </dev/tty) 2>/dev/null; then echo a tty; else echo none; fi"),
            "none\n");
}

TEST_F(Security, NobodyReadsAnothersLease) {
  ASSERT_EQ(shell("exec 3<>control; echo lease secret --as kept >&3; cat <&3", mnt()).status, 0);
  const std::string lease = shell("ls leases", mnt()).output;
  ASSERT_NE(lease.find("secret."), std::string::npos);
  const std::string path = mnt("leases/" + lease.substr(0, lease.size() - 1));
  writeFile(path + "/f", "mine");
  EXPECT_NE(shell("cat " + path + "/f", "/", kUser).status, 0);
  EXPECT_NE(shell("ls " + path, "/", kUser).status, 0);
  EXPECT_NE(shell("echo x > " + path + "/g", "/", kUser).status, 0);
  EXPECT_NE(shell("rmdir " + path, "/", kUser).status, 0);
  EXPECT_EQ(readFile(path + "/f"), "mine");
}

TEST_F(Security, WhatIsSavedCantBeChangedOnDiskByWhoMadeIt) {
  built("a", "echo right > f; mkdir d; chmod 777 . d f");
  ASSERT_EQ(shell("cd caches/k && echo right > f", mnt(), kUser).status, 0);
  ASSERT_EQ(shell("rmdir leases/k.*; echo complete-deletes > control", mnt()).status, 0);
  for (const char* tree : {"/result/a", "/cache/k"}) {
    const std::string path = store() + tree;
    ASSERT_EQ(readFile(path + "/f"), "right\n");
    EXPECT_NE(shell("echo wrong > " + path + "/f", "/", kUser).status, 0);
    EXPECT_NE(shell("echo wrong > " + path + "/new", "/", kUser).status, 0);
    EXPECT_NE(shell("chmod 755 " + path, "/", kUser).status, 0);
    EXPECT_EQ(readFile(path + "/f"), "right\n");
    EXPECT_FALSE(exists(path + "/new"));
  }
  EXPECT_EQ(shell("cat results/a/f", mnt(), kUser).output, "right\n");
}

// Mounts that a command makes in namespaces of its own are not those that are made read-only one by
// one, and outlive it where somebody was handed a way in.
TEST_F(Security, WhoWasHandedAWayInByACommandCantChangeWhatIsSaved) {
  if (!nativeBuildsPossible()) GTEST_SKIP() << "declared: no overlayfs for the daemon here";
  built("base", "echo 1 > f");
  for (const std::string base : {"", "--base base"}) {
    const std::string id = base.empty() ? "x" : "over";
    const UniqueFd way = handedOutBy(id, base, "os.open('.', os.O_RDONLY)");
    EXPECT_EQ(::openat(way.get(), "hello", O_WRONLY | O_TRUNC | O_CLOEXEC), -1) << base;
    EXPECT_EQ(errno, EROFS) << base;
    EXPECT_EQ(::mkdirat(way.get(), "new", 0700), -1) << base;
    expectRight(id);
  }
}

TEST_F(Security, WhoWritesOnByAMountOfTheCommandsDoesNotReachWhatIsSaved) {
  if (!nativeBuildsPossible()) GTEST_SKIP() << "declared: no overlayfs for the daemon here";
  built("base", "echo 1 > f; echo 2 > g; chmod 640 g");
  for (const std::string base : {"", "--base base"}) {
    const std::string id = base.empty() ? "x" : "over";
    const UniqueFd file = handedOutBy(id, base, "os.open('hello', os.O_RDWR)");
    EXPECT_EQ(::pwrite(file.get(), "wrong", 5, 0), 5);
    expectRight(id);
  }
  EXPECT_EQ(readFile(store() + "/result/over/g"), "2\n");
  EXPECT_EQ(modeOf(store() + "/result/over/g"), 0640U);
}

TEST_F(Security, OtherUsersDoNotReachTheStoresDirectories) {
  const auto check = [this] {
    for (const char* area : {"result", "result-tmp", "cache", "cache-tmp", "state"}) {
      EXPECT_EQ(modeOf(store() + "/" + area), 0700U) << area;
    }
    EXPECT_EQ(modeOf(store() + "/log"), 0755U);
  };
  check();
  finish();
  for (const char* area : {"result", "result-tmp", "cache", "cache-tmp", "state"}) {
    ASSERT_EQ(::chmod((store() + "/" + area).c_str(), 0755), 0);
  }
  start({"control_mode=0666"});
  check();
  finish();
  // A group that may write there is one that takes turns with us.
  ASSERT_EQ(::chmod((store() + "/result").c_str(), 02775), 0);
  start({"control_mode=0666"});
  EXPECT_EQ(modeOf(store() + "/result"), 02770U);
}

TEST_F(Security, AStoreOfAnOrdinaryUsersKeepsItsWorkInProgressToItself) {
  const std::string own = scratch() + "/own";
  ASSERT_EQ(::chmod(scratch().c_str(), 0777), 0);
  ASSERT_EQ(asUser(kUser, [&own] { return Store::create(own, {}) ? 0 : 1; }), 0);
  for (const char* area : {"result-tmp", "cache-tmp", "state"}) {
    EXPECT_EQ(modeOf(own + "/" + area), 0700U) << area;
  }
  // All in it is the user's own: modes say who else may read it.
  EXPECT_EQ(modeOf(own + "/result"), 0755U);
}

TEST_F(Security, SetIdFilesAndDevicesOfATreeAreKeptButDoNothing) {
  // Made by root, in a result that all may read; seen through the mount by a user.
  writeFile(
      scratch() + "/line",
      "build a --wait -c 'cp /usr/bin/id id; chmod 4755 id; mknod null c 1 3; chmod 666 null'\n");
  ASSERT_EQ(shell("cat " + scratch() + "/line > control", mnt()).status, 0);
  EXPECT_EQ(shell("stat -c %a results/a/id", mnt()).output, "4755\n");
  EXPECT_EQ(shell("results/a/id -u", mnt(), kUser).output, "65534\n");
  EXPECT_NE(shell("cat results/a/null", mnt(), kUser).status, 0);
}

TEST_F(Security, ALinkInAResultTakesTheDaemonNowhere) {
  ASSERT_EQ(::mkdir((scratch() + "/outside").c_str(), 0755), 0);
  writeFile(scratch() + "/outside/f", "theirs");
  writeFile(scratch() + "/line", "build a --wait -c 'ln -s " + scratch() + "/outside d; ln -s " +
                                     scratch() + "/outside/f f'\n");
  ASSERT_EQ(shell("cat " + scratch() + "/line > control", mnt()).status, 0);
  const std::string at = "--base a --copy " + scratch() + "/line:d/new";
  writeFile(scratch() + "/line2", "build b " + at + " --wait -- true\n");
  (void)shell("cat " + scratch() + "/line2 > control", mnt());
  writeFile(scratch() + "/line3", "build c --base a --cache k:d/k --wait -- true\n");
  (void)shell("cat " + scratch() + "/line3 > control", mnt());
  ASSERT_EQ(shell("rmdir results/b results/c results/a 2>/dev/null; ls results", mnt()).output, "");
  EXPECT_EQ(shell("echo complete-deletes > control", mnt()).status, 0);
  EXPECT_EQ(entries(scratch() + "/outside"), 1U);
  EXPECT_EQ(readFile(scratch() + "/outside/f"), "theirs");
}

}  // namespace
}  // namespace kilnfs::testing
