#include "store/base/workers.h"

#include <pthread.h>

#include <chrono>
#include <thread>

namespace kilnfs {
namespace {
constexpr std::chrono::seconds kIdle{5};
}

Workers::~Workers() {
  drain();
}

void Workers::run(std::function<void()> job) {
  const std::lock_guard lock(mutex_);
  jobs_.push_back(std::move(job));
  // An idle thread takes one job; count those already promised to the queue.
  if (waiting_ >= jobs_.size() || threads_ >= limit_) {
    wake_.notify_one();
    return;
  }
  ++threads_;
  std::thread([this] { threadMain(); }).detach();
}

void Workers::threadMain() {
  ::pthread_setname_np(::pthread_self(), "worker");  // not that of the thread that made it
  std::unique_lock lock(mutex_);
  for (;;) {
    if (jobs_.empty()) {
      ++waiting_;
      wake_.wait_for(lock, stopping_ ? std::chrono::seconds{0} : kIdle,
                     [this] { return stopping_ || !jobs_.empty(); });
      --waiting_;
      if (jobs_.empty()) break;
    }
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
  }
  --threads_;
  // Notified under the lock: the pool may be destroyed as soon as it is released.
  idle_.notify_all();
}

void Workers::drain() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  wake_.notify_all();
  idle_.wait(lock, [this] { return threads_ == 0 && jobs_.empty(); });
  stopping_ = false;
}

}  // namespace kilnfs
