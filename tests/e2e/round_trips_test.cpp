// How often the kernel has to ask the daemon: each round trip costs more than what it is for. What
// is left is what the protocol demands: see the reason with each.

#include <sys/statvfs.h>

#include <sstream>

#include "tests/support/lease_fixture.h"

namespace kilnfs::testing {
namespace {

class RoundTrips : public MountedStore {
 protected:
  void SetUp() override {
    MountedStore::SetUp();
    start({"debug"});
    ASSERT_EQ(shell("echo 'lease c --as t' > control; mkdir leases/c.1/d", mnt()).status, 0);
    former_ = std::filesystem::current_path();
    std::filesystem::current_path(mnt("leases/c.1/d"));
  }
  void TearDown() override {
    std::filesystem::current_path(former_);
    MountedStore::TearDown();
  }

  /// The requests that `body` leads to, in order, but for those that nobody waits for, and for the
  /// attributes of the mount's root, which are asked for every few milliseconds.  With `only`,
  /// those of which that is a part of the name.
  std::string requests(const std::function<void()>& body, const std::string& only = "") {
    settle();
    const size_t from = daemon_->log().size();
    body();
    settle();
    std::istringstream log(daemon_->log().substr(from));
    std::string names;
    for (std::string line; std::getline(log, line);) {
      const size_t at = line.find("opcode: ");
      if (at == std::string::npos || line.find("nodeid: 1,") != std::string::npos) continue;
      const std::string name = line.substr(at + 8, line.find(' ', at + 8) - at - 8);
      if (!only.empty() && name.find(only) == std::string::npos) continue;
      if (only.empty() && (name == "RELEASE" || name == "FORGET" || name == "BATCH_FORGET"))
        continue;
      names += (names.empty() ? "" : " ") + name;
    }
    return names;
  }

 private:
  // By a request for the root, after which those before it are in the log.
  void settle() {
    const UniqueFd root(::open(mnt().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct statvfs space = {};
    ASSERT_EQ(::fstatvfs(root.get(), &space), 0);
  }

  std::filesystem::path former_;
};

// The kernel reads by itself, or keeps what it has read.
#ifdef KILNFS_FUSE_PASSES_THROUGH
const std::string kFirstRead = "OPEN";
#else
const std::string kFirstRead = "OPEN READ";
#endif

void make(const std::string& name) {
  const UniqueFd fd(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  ASSERT_EQ(::write(fd.get(), "text", 4), 4);
}
void look(const std::string& name) {
  struct stat st = {};
  ASSERT_EQ(::stat(name.c_str(), &st), 0);
}
void read(const std::string& name) {
  char text[4];
  const UniqueFd fd(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::read(fd.get(), text, sizeof text), 4);
}

void move(const std::string& from, const std::string& to) {
  ASSERT_EQ(::rename(from.c_str(), to.c_str()), 0);
}
void remove(const std::string& name) {
  ASSERT_EQ(::unlink(name.c_str()), 0);
}

TEST_F(RoundTrips, OfALease) {
  make("first");
  // The directory's attributes changed with the first file, and its rights are among them.
  const std::string directory = "GETATTR ";
#ifdef KILNFS_FUSE_PASSES_THROUGH
  // Whether the file has capabilities that writing to it takes away, asked once for each.
  EXPECT_EQ(requests([] { make("f"); }), directory + "LOOKUP CREATE GETXATTR");
#else
  EXPECT_EQ(requests([] { make("f"); }), directory + "LOOKUP CREATE GETXATTR WRITE");
#endif
  EXPECT_EQ(requests([] { read("f"); }), directory + kFirstRead);
  make("g");
  EXPECT_EQ(requests([] { look("g"); }), directory + "GETATTR") << "its times, from who wrote it";
  EXPECT_EQ(requests([] { look("g"); }), "");
  EXPECT_EQ(requests([] { read("g"); }), kFirstRead);
  EXPECT_EQ(requests([] { read("g"); }), "OPEN");
  EXPECT_EQ(requests([] { move("g", "h"); }), "LOOKUP RENAME") << "what it replaces";
  EXPECT_EQ(requests([] { remove("h"); }), directory + "UNLINK");
  EXPECT_EQ(requests([this] { look(mnt("leases/c.1/d/f")); }), directory + "GETATTR");
  EXPECT_EQ(requests([this] { look(mnt("leases/c.1/d/f")); }), "") << "the whole way is known";
}

TEST_F(RoundTrips, OfAResult) {
  ASSERT_EQ(shell("echo \"build r --wait -c 'mkdir d; echo text > d/f'\" > control", mnt()).status,
            0);
  std::filesystem::current_path(mnt());
  // Twice for each directory: the kernel asks until nothing comes.
  EXPECT_EQ(shell("find results/r | wc -l", mnt()).output, "3\n");
  EXPECT_EQ(shell("find results/r -ls | wc -l", mnt()).output, "3\n");
  const auto walk = [this] { EXPECT_EQ(shell("find results/r | wc -l", mnt()).output, "3\n"); };
  walk();
  EXPECT_EQ(requests([this] { look(mnt("results/r/d/f")); }), "");
  EXPECT_EQ(requests([this] { read(mnt("results/r/d/f")); }), "OPEN") << "it gets what it holds";
  EXPECT_EQ(requests([this] { read(mnt("results/r/d/f")); }), "OPEN");
}

// Else each lease, build and deleted result would cost the daemon memory as long as the kernel has
// some.
TEST_F(RoundTrips, WhatIsGoneIsForgotten) {
  std::filesystem::current_path(mnt());
  ASSERT_EQ(
      shell("echo \"build r --wait -c 'echo text > f'\" > control; cat results/r/f", mnt()).status,
      0);
  ASSERT_EQ(shell("echo text > leases/c.1/d/f", mnt()).status, 0);
  for (const char* ends : {"rmdir leases/c.1", "echo 'delete r' > control"}) {
    const std::string forgotten = requests(
        [&] {
          const size_t from = daemon_->log().size();
          EXPECT_EQ(shell(ends, mnt()).status, 0);
          // Nobody waits for it: it comes when the kernel gets to it.
          while (daemon_->log().find("FORGET", from) == std::string::npos) ::usleep(1000);
        },
        "FORGET");
    EXPECT_NE(forgotten, "") << ends;
  }
}

}  // namespace
}  // namespace kilnfs::testing
