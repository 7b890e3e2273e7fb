// The same random operations on a native directory and on a lease or a build's tmpdir: answers, and
// trees in the end, must be equal.
//
// KILNFS_POSIX_SEED and KILNFS_POSIX_STEPS make other and longer sequences of them.

#include <thread>

#include "tests/posix/posix_test.h"
#include "tests/posix/random_ops.h"

namespace kilnfs::testing {
namespace {

unsigned number(const char* name, unsigned otherwise) {
  const char* text = ::getenv(name);
  return text != nullptr ? static_cast<unsigned>(std::stoul(text)) : otherwise;
}

/// Gives the first difference, or nothing.
std::string compare(Side& right, Side& tested, unsigned seed, unsigned steps) {
  std::mt19937 random(seed);
  for (unsigned i = 0; i < steps; ++i) {
    const Operation operation = randomOperation(random);
    const std::string expected = right.run(operation);
    const std::string got = tested.run(operation);
    if (got != expected) {
      return "seed " + std::to_string(seed) + " step " + std::to_string(i) + ": " +
             operation.text() + "\nexpected " + expected + "\ngot " + got;
    }
  }
  right.closeAll();
  tested.closeAll();
  const std::string expected = right.wholeTree();
  const std::string got = tested.wholeTree();
  return got == expected ? "" : "trees differ\nexpected\n" + expected + "got\n" + got;
}

class RandomOperations : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override { ::umask(022); }
  void start() {
    cache_ = Site::get().fresh("random");
    leaseAgain();
  }
  void leaseAgain() {
    lease_ = Site::get().lease(cache_);
    tree_ = Site::get().mnt("leases/" + lease_);
  }
  void release(const std::string& how = "") {
    const Answer answer = Site::get().release(lease_, how);
    EXPECT_TRUE(answer.ok) << answer.text;
  }

  /// Every other round starts while the snapshot below is still made plain in the background, which
  /// moves the time of change of files that are linked: whether these can be compared.
  bool settle(unsigned round) const {
    if (round % 2 != 0) return false;
    EXPECT_TRUE(Site::get().command("complete-deletes").ok);
    return true;
  }
  /// Whether the cache, as plain directories, is `expected`.
  void expectPublished(const std::string& expected) {
    EXPECT_TRUE(Site::get().command("complete-deletes").ok);
    Side published(Site::get().store() + "/cache/" + cache_);
    EXPECT_EQ(published.wholeTree(), expected);
  }

  std::string cache_, lease_, tree_;
};

/// An error that a disk gives only if it is broken, or nothing.
std::string trouble(const std::string& answer) {
  for (const int code : {EIO, ESTALE, ENOTCONN, ENOSYS, EFAULT}) {
    if (answer.starts_with("errno " + std::to_string(code) + "\n")) return answer;
  }
  return "";
}

TEST_P(RandomOperations, AreAnsweredAsNatively) {
  const unsigned seed = number("KILNFS_POSIX_SEED", 1);
  const unsigned steps = number("KILNFS_POSIX_STEPS", 2000);
  const NativeTree native;
  start();
  for (const std::string& root : {native.path(), tree_}) {
    ASSERT_EQ(::chmod(root.c_str(), 0777), 0);
  }
  for (unsigned round = 0; round < 4; ++round) {
    const bool settled = settle(round);
    Side right(native.path(), settled);
    {
      Side tested(tree_, settled);
      ASSERT_EQ(compare(right, tested, seed * 100 + round, steps / 4), "");
    }
    if (GetParam() != Kind::filled) continue;
    release();
    leaseAgain();
  }
  release();
  expectPublished(Side(native.path()).wholeTree());
}

TEST_P(RandomOperations, AreAnsweredAsNativelyToThreadsAtOnce) {
  constexpr unsigned kThreads = 4;
  const unsigned seed = number("KILNFS_POSIX_SEED", 1);
  const unsigned steps = number("KILNFS_POSIX_STEPS", 2000);
  const NativeTree native;
  start();
  for (const std::string& root : {native.path(), tree_}) {
    for (unsigned i = 0; i < kThreads; ++i) {
      const std::string part = root + "/" + std::to_string(i);
      ASSERT_EQ(::mkdir(part.c_str(), 0777), 0);
      ASSERT_EQ(::chmod(part.c_str(), 0777), 0);
    }
  }
  for (unsigned round = 0; round < 4; ++round) {
    std::vector<std::string> found(kThreads);
    std::vector<std::thread> threads;
    const bool settled = settle(round);
    for (unsigned i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i, settled] {
        const std::string part = "/" + std::to_string(i);
        Side right(native.path() + part, settled);
        Side tested(tree_ + part, settled);
        found[i] = compare(right, tested, seed * 1000 + round * 10 + i, steps / 8);
      });
    }
    for (auto& thread : threads) thread.join();
    for (const std::string& difference : found) ASSERT_EQ(difference, "");
    if (GetParam() != Kind::filled) continue;
    release();
    leaseAgain();
  }
  release(" --discard");
}

TEST_P(RandomOperations, InOneAnothersWayLeaveATreeThatIsWhole) {
  constexpr unsigned kThreads = 4;
  const unsigned seed = number("KILNFS_POSIX_SEED", 1);
  const unsigned steps = number("KILNFS_POSIX_STEPS", 2000);
  start();
  for (unsigned round = 0; round < 3; ++round) {
    ASSERT_EQ(::chmod(tree_.c_str(), 0777), 0);
    std::vector<std::string> found(kThreads);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        std::mt19937 random(seed * 1000 + round * 10 + i);
        Side side(tree_);
        for (unsigned step = 0; step < steps / 4 && found[i].empty(); ++step) {
          const Operation operation = randomOperation(random);
          if (operation.op == Op::map) continue;  // SIGBUS, where another thread truncates
          const std::string wrong = trouble(side.run(operation));
          if (!wrong.empty()) found[i] = operation.text() + "\n" + wrong;
        }
      });
    }
    for (auto& thread : threads) thread.join();
    for (const std::string& wrong : found) ASSERT_EQ(wrong, "");
    const std::string whole = Side(tree_).wholeTree();
    EXPECT_EQ(whole.find(" errno"), std::string::npos) << whole;
    if (GetParam() != Kind::filled && round < 2) continue;
    release();
    expectPublished(whole);
    leaseAgain();
  }
  release(" --discard");
}

INSTANTIATE_TEST_SUITE_P(, RandomOperations, ::testing::Values(Kind::empty, Kind::filled),
                         KindName());

}  // namespace
}  // namespace kilnfs::testing
