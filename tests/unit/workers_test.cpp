#include "store/base/workers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace kilnfs {
namespace {

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

}  // namespace
}  // namespace kilnfs
