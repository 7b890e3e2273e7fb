#include "store/base/workers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "tests/support/no_more_threads.h"

namespace kilnfs {
namespace {

using testing::NoMoreThreads;

TEST(Workers, WhoDrainsThemNeedNotWaitForEver) {
  Workers workers;
  std::promise<void> go;
  std::atomic<bool> done = false;
  workers.run([&] {
    go.get_future().wait();
    done = true;
  });
  EXPECT_FALSE(workers.drainFor(std::chrono::milliseconds(1)));
  EXPECT_FALSE(done);
  go.set_value();
  EXPECT_TRUE(workers.drainFor(std::chrono::seconds(60)));
  EXPECT_TRUE(done);
}

TEST(Workers, WhereNoThreadCanBeMadeTheOneThatIsThereDoesIt) {
  Workers workers;
  const NoMoreThreads none;
  std::promise<void> go;
  std::atomic<int> done = 0;
  workers.run([&] {
    go.get_future().wait();
    ++done;
  });
  for (int i = 0; i < 3; ++i) workers.run([&] { ++done; });
  EXPECT_FALSE(workers.drainFor(std::chrono::milliseconds(1)));
  EXPECT_EQ(done, 0);
  go.set_value();
  EXPECT_TRUE(workers.drainFor(std::chrono::seconds(60)));
  EXPECT_EQ(done, 4);
  // Though all had nothing to do meanwhile.
  workers.run([&] { ++done; });
  workers.drain();
  EXPECT_EQ(done, 5);
}

TEST(Workers, WhatWaitedForAThreadGetsOneOnceThereMayBe) {
  Workers workers;
  std::promise<void> go;
  std::promise<void> last;
  {
    const NoMoreThreads none;
    workers.run([&] { go.get_future().wait(); });
    workers.run([&] { last.get_future().wait(); });
    workers.run([&] { last.set_value(); });
  }
  go.set_value();
  workers.drain();  // or the second waits for the third for ever
}

}  // namespace
}  // namespace kilnfs
