#include "store/base/workers.h"

#include <pthread.h>

#include <utility>

namespace kilnfs {
namespace {
constexpr std::chrono::seconds kIdle{5};
}

Workers::Workers(size_t limit) : limit_(limit) {
  const std::lock_guard lock(mutex_);
  if (const auto failed = startThread()) throw std::system_error(failed, "start a thread");
}

Workers::~Workers() {
  drain();
  std::unique_lock lock(mutex_);
  stopping_ = true;
  wake_.notify_all();
  idle_.wait(lock, [this] { return threads_.empty(); });
  Threads finished = std::exchange(finished_, {});
  lock.unlock();
  for (std::thread& thread : finished) thread.join();
}

void Workers::run(std::function<void()> job) {
  const std::lock_guard lock(mutex_);
  jobs_.push_back(std::move(job));
  // An idle thread takes one job; count those already promised to the queue.
  if (waiting_ < jobs_.size() && threads_.size() < limit_ && !startThread()) return;
  wake_.notify_one();  // at the limit, or if there can be no more: those that are there take it
}

std::error_code Workers::startThread() {
  const auto self = threads_.emplace(threads_.end());
  try {
    *self = std::thread([this, self] { threadMain(self); });
  } catch (const std::system_error& e) {
    threads_.erase(self);
    return e.code();
  }
  return {};
}

/// Whether there is a job for this thread; if not, it ends.
bool Workers::awaitJob(std::unique_lock<std::mutex>& lock) {
  const auto woken = [this] { return stopping_ || !jobs_.empty(); };
  ++waiting_;
  if (jobs_.empty()) idle_.notify_all();
  // The last one stays: there may be no other when one is needed.
  while (!woken()) {
    if (threads_.size() == 1) {
      wake_.wait(lock, [&] { return woken(); });
    } else if (!wake_.wait_for(lock, kIdle, woken) && threads_.size() > 1) {
      break;
    }
  }
  --waiting_;
  return !jobs_.empty();
}

void Workers::threadMain(Threads::iterator self) {
  ::pthread_setname_np(::pthread_self(), "worker");  // not that of the thread that made it
  std::unique_lock lock(mutex_);
  while (!jobs_.empty() || awaitJob(lock)) {
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
    // Those that no thread could be made for may have one by now.
    if (waiting_ + 1 < jobs_.size() && threads_.size() < limit_) (void)startThread();
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
  return idle_.wait_for(lock, limit,
                        [this] { return jobs_.empty() && waiting_ == threads_.size(); });
}

}  // namespace kilnfs
