// A pool of threads for work that may block: copying, publishing, waiting for builds.
//
// The threads of FUSE's loop must stay free, so slow work moves here with its reply. A job never
// waits behind another: a thread is made when none is idle (up to `limit`), and idle ones but the
// last end after a while. Where no thread can be made (a limit of the system's) jobs wait for those
// that are there, of which there is always one. Jobs must not throw.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <system_error>
#include <thread>

namespace kilnfs {

class Workers {
 public:
  /// Throws std::system_error if there can't be a first thread.
  explicit Workers(size_t limit = 2000);
  /// Waits for all jobs, queued and running.
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  /// Runs `job` on a thread of the pool; never blocks, never fails. At the limit the job waits for
  /// a thread.
  void run(std::function<void()> job);

  /// Waits until every job has ended. Jobs may still be added meanwhile.
  void drain();
  /// The same, but no longer than `limit`; false: not all have.
  bool drainFor(std::chrono::milliseconds limit);

 private:
  using Threads = std::list<std::thread>;
  std::error_code startThread();
  bool awaitJob(std::unique_lock<std::mutex>& lock);
  void threadMain(Threads::iterator self);

  const size_t limit_;
  std::mutex mutex_;
  std::condition_variable wake_;            // a job came, or stopping
  std::condition_variable idle_;            // a thread has nothing to do, or ended
  std::deque<std::function<void()>> jobs_;  // guarded by mutex_, as what follows
  Threads threads_;
  Threads finished_;  // to be joined: by the next one that ends, or at the end
  size_t waiting_ = 0;
  bool stopping_ = false;
};

}  // namespace kilnfs
