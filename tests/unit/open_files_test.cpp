#include "fs/open_files.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace kilnfs {
namespace {

TEST(OpenFiles, TheFirstOpenDecides) {
  OpenFiles files;
  int asked = 0;
  const auto enroll = [&] { return ++asked; };
  EXPECT_EQ(files.begin(7, false, enroll), 1);
  EXPECT_EQ(files.begin(7, false, enroll), 1);
  EXPECT_EQ(files.begin(7, false, nullptr), 1);
  EXPECT_EQ(files.begin(8, false, nullptr), 0);
  EXPECT_EQ(files.begin(8, false, enroll), 0);
  EXPECT_EQ(asked, 1);
  files.end(7);
  files.end(7);
  EXPECT_EQ(files.takeUnused(), std::vector<int>()) << "in use still";
  files.end(7);
  EXPECT_EQ(files.takeUnused(), std::vector<int>{1});
  EXPECT_EQ(files.begin(7, false, enroll), 2);
}

TEST(OpenFiles, KnowsWhatMayBeMappedForWriting) {
  OpenFiles files;
  files.begin(7, false, [] { return 1; });
  EXPECT_FALSE(files.mappable(7));
  files.begin(7, true, nullptr);
  EXPECT_TRUE(files.mappable(7));
  EXPECT_TRUE(files.end(7)) << "though another one has it open";
  EXPECT_TRUE(files.mappable(7));
  EXPECT_TRUE(files.end(7));
  EXPECT_FALSE(files.mappable(7));
  files.begin(8, true, nullptr);
  EXPECT_FALSE(files.mappable(8)) << "through the page cache, where it is seen";
}

// What a first open reads to give to the kernel must not be changed until the kernel has it.
TEST(OpenFiles, WhoeverChangesAFileWaitsForAFirstOpenUnderWay) {
  OpenFiles files;
  std::atomic<int> passed = 0;
  std::thread opener;
  std::thread changer;
  files.begin(7, false, [&] {
    opener = std::thread([&] {
      files.begin(7, false, nullptr);
      ++passed;
    });
    changer = std::thread([&] {
      files.settle(7);
      ++passed;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(passed, 0);
    return 0;
  });
  opener.join();
  changer.join();
  EXPECT_EQ(passed, 2);
}

TEST(OpenFiles, AFirstOpenHoldsUpNobodyElse) {
  OpenFiles files;
  files.begin(7, false, [&] {
    for (uint64_t node = 8; node < 40; ++node) {
      EXPECT_EQ(files.begin(node, false, [] { return 5; }), 5);
      files.settle(node);
      EXPECT_FALSE(files.end(node));
    }
    EXPECT_FALSE(files.mappable(7));
    return 0;
  });
}

TEST(OpenFiles, AFirstOpenThatFailsIsNone) {
  OpenFiles files;
  EXPECT_THROW(files.begin(7, false, []() -> int { throw std::bad_alloc(); }), std::bad_alloc);
  EXPECT_EQ(files.begin(7, false, [] { return 3; }), 3);
}

}  // namespace
}  // namespace kilnfs
