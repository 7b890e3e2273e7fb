#include "store/base/workers.h"

#include <pthread.h>

#include <system_error>
#include <utility>

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
  if (waiting_ >= jobs_.size() || threads_.size() >= limit_) {
    wake_.notify_one();
    return;
  }
  startThread();
}

void Workers::startThread() {
  const auto self = threads_.emplace(threads_.end());
  try {
    *self = std::thread([this, self] { threadMain(self); });
  } catch (const std::system_error&) {
    threads_.erase(self);
    if (!threads_.empty()) return;  // those that are there take the job
    jobs_.pop_back();
    throw;
  }
}

void Workers::threadMain(Threads::iterator self) {
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
  Threads others = std::exchange(finished_, {});
  finished_.splice(finished_.end(), threads_, self);
  idle_.notify_all();
  lock.unlock();
  for (std::thread& thread : others) thread.join();
}

void Workers::drain() {
  while (!drainFor(std::chrono::hours(1))) {
  }
}

bool Workers::drainFor(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  wake_.notify_all();
  const bool done =
      idle_.wait_for(lock, limit, [this] { return threads_.empty() && jobs_.empty(); });
  stopping_ = false;
  Threads finished = std::exchange(finished_, {});
  lock.unlock();
  for (std::thread& thread : finished) thread.join();
  return done;
}

}  // namespace kilnfs
