#include "fs/request_loop.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <functional>
#include <latch>
#include <thread>
#include <vector>

#include "fs/patience.h"

namespace kilnfs {
namespace {

using namespace std::chrono_literals;

// Requests are bytes of a socket pair: which one says what to do.
class Bytes : public RequestSource {
 public:
  Bytes() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
      throw std::runtime_error("socketpair");
    }
    theirs_ = UniqueFd(ends[0]);
    ours_ = UniqueFd(ends[1]);
  }

  void ask(uint8_t what) { ASSERT_EQ(::write(theirs_.get(), &what, 1), 1); }
  void close() { theirs_.reset(); }
  void failNext() { fails_ = true; }

  std::function<void(uint8_t)> handler;

  std::unique_ptr<Place> place() override {
    ++places;
    return std::make_unique<One>(*this);
  }
  int descriptor() const override { return ours_.get(); }

  std::atomic<int> places{0};

 private:
  struct One : Place {
    explicit One(Bytes& bytes) : all(bytes) {}
    Expected<Taken> take() override {
      if (all.fails_) return fail(EIO, "as asked");
      const ssize_t got = ::read(all.ours_.get(), &what, 1);
      if (got == 1) return Taken::request;
      return got == 0 ? Taken::end : Taken::nothing;
    }
    void handle() override { all.handler(what); }
    Bytes& all;
    uint8_t what = 0;
  };

  UniqueFd theirs_;
  UniqueFd ours_;
  std::atomic<bool> fails_{false};
};

class RequestLoopTest : public ::testing::Test {
 protected:
  void start(RequestLoop::Options options = {}) {
    loop_ = std::make_unique<RequestLoop>(bytes_, options);
    thread_ = std::thread([this] { result_ = loop_->run(); });
  }
  Status finish() {
    thread_.join();
    return result_;
  }
  void TearDown() override {
    if (thread_.joinable()) {
      loop_->stop();
      thread_.join();
    }
  }

  Bytes bytes_;
  std::unique_ptr<RequestLoop> loop_;
  std::thread thread_;
  Status result_;
};

TEST_F(RequestLoopTest, HandlesEachRequestOnceAndEndsWithTheSource) {
  std::vector<std::atomic<int>> handled(256);
  bytes_.handler = [&](uint8_t what) { ++handled[what]; };
  start();
  for (int i = 0; i < 256; ++i) {
    bytes_.ask(static_cast<uint8_t>(i));
    if (i % 32 == 0) std::this_thread::sleep_for(2ms);
  }
  bytes_.close();
  EXPECT_TRUE(finish());
  for (const auto& times : handled) EXPECT_EQ(times, 1);
}

TEST_F(RequestLoopTest, OneThreadHandlesRequestsThatComeOneAfterTheOther) {
  std::atomic<int> answered{0};
  bytes_.handler = [&](uint8_t) {
    ++answered;
    answered.notify_all();
  };
  start();
  for (int i = 0; i < 2000; ++i) {
    bytes_.ask(0);
    answered.wait(i);
  }
  bytes_.close();
  EXPECT_TRUE(finish());
  // A thread that lost its processor for a millisecond is replaced, so there may be a few.
  EXPECT_LE(bytes_.places, 8);
}

TEST_F(RequestLoopTest, RequestsThatWaitForLaterOnesAreNotInTheirWay) {
  constexpr int kDepth = 20;
  std::vector<std::unique_ptr<std::latch>> done;
  for (int i = 0; i <= kDepth; ++i) done.push_back(std::make_unique<std::latch>(1));
  bytes_.handler = [&](uint8_t what) {
    if (what < kDepth) done[what + 1]->wait();
    done[what]->count_down();
  };
  start();
  for (int i = 0; i <= kDepth; ++i) {
    bytes_.ask(static_cast<uint8_t>(i));
    std::this_thread::sleep_for(1ms);
  }
  done[0]->wait();
  bytes_.close();
  EXPECT_TRUE(finish());
}

TEST_F(RequestLoopTest, RequestsThatWaitAllAtOnceAreHandledTogether) {
  std::latch all(16);
  bytes_.handler = [&](uint8_t) { all.arrive_and_wait(); };
  for (int i = 0; i < 16; ++i) bytes_.ask(0);
  start();
  all.wait();
  bytes_.close();
  EXPECT_TRUE(finish());
}

TEST_F(RequestLoopTest, AtTheLimitOfThreadsRequestsWaitForTheNextThatIsFree) {
  std::latch release(1);
  std::atomic<int> handled{0};
  bytes_.handler = [&](uint8_t what) {
    if (what == 0) release.wait();
    ++handled;
    handled.notify_all();
  };
  start({.threads = 2});
  for (const int what : {0, 0, 1, 1, 1}) bytes_.ask(static_cast<uint8_t>(what));
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(handled, 0);
  release.count_down();
  for (int i = 0; i < 5; ++i) handled.wait(i);
  EXPECT_LE(bytes_.places, 2);
}

TEST_F(RequestLoopTest, ThreadsThatAreNotNeededAnyMoreEnd) {
  struct Count {  // lives as long as its thread
    static std::atomic<int>& now() {
      static std::atomic<int> threads{0};
      return threads;
    }
    Count() { ++now(); }
    ~Count() {
      --now();
      now().notify_all();
    }
  };
  std::latch all(8);
  bytes_.handler = [&](uint8_t) {
    thread_local const Count count;
    all.arrive_and_wait();
  };
  start({.idle = 5ms});
  for (int i = 0; i < 8; ++i) bytes_.ask(0);
  all.wait();
  for (int now = Count::now(); now > 2; now = Count::now()) Count::now().wait(now);
}

TEST_F(RequestLoopTest, StopWaitsForWhatIsBeingHandled) {
  std::latch begun(1);
  std::latch release(1);
  std::atomic<bool> handled{false};
  bytes_.handler = [&](uint8_t) {
    begun.count_down();
    release.wait();
    handled = true;
  };
  start();
  bytes_.ask(0);
  begun.wait();
  loop_->stop();
  release.count_down();
  EXPECT_TRUE(finish());
  EXPECT_TRUE(handled);
}

TEST_F(RequestLoopTest, StopBeforeItRunsEndsIt) {
  loop_ = std::make_unique<RequestLoop>(bytes_);
  loop_->stop();
  EXPECT_TRUE(loop_->run());
}

TEST_F(RequestLoopTest, StopWakesWhoWaitsForRequests) {
  start();
  std::this_thread::sleep_for(60ms);  // asleep by now, and nobody looks out
  loop_->stop();
  EXPECT_TRUE(finish());
}

TEST_F(RequestLoopTest, ASourceThatFailsEndsIt) {
  bytes_.handler = [&](uint8_t) { bytes_.failNext(); };
  start();
  bytes_.ask(0);
  const Status result = finish();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "as asked");
}

using Wait = Patience::Wait;

TEST(Patience, WaitsAwakeWhileRequestsComeSoon) {
  Patience patience;
  const auto now = Patience::Clock::time_point(1h);
  EXPECT_FALSE(patience.worthIt(now));
  for (int i = 0; i < 4; ++i) patience.came(5us, Wait::none);
  EXPECT_TRUE(patience.worthIt(now));
  patience.came(10ms, Wait::both);
  EXPECT_TRUE(patience.worthIt(now)) << "one pause";
  patience.came(10ms, Wait::both);
  EXPECT_FALSE(patience.worthIt(now)) << "two of four";
}

TEST(Patience, CountsWithTheTimeThatBeingWokenTook) {
  Patience patience;
  const auto now = Patience::Clock::time_point(1h);
  for (int i = 0; i < 4; ++i) patience.came(Patience::kAwake + 20us, Wait::asleep);
  EXPECT_TRUE(patience.worthIt(now));
  for (int i = 0; i < 4; ++i) {
    patience.came(Patience::kAwake + Patience::kWoken + 1us, Wait::asleep);
  }
  EXPECT_FALSE(patience.worthIt(now));
}

TEST(Patience, LeavesACrowdedProcessorToOthersForAWhile) {
  Patience patience;
  const auto now = Patience::Clock::time_point(1h);
  for (int i = 0; i < 4; ++i) patience.came(5us, Wait::awake);
  patience.crowded(now);
  EXPECT_FALSE(patience.worthIt(now + 1ms));
  EXPECT_TRUE(patience.worthIt(now + Patience::kCourtesy));
}

}  // namespace
}  // namespace kilnfs
