// Takes requests and has them handled, by as few threads as can do so without delay.
//
// A thread that sleeps is woken in 10 to 30 microseconds, which is longer than most requests take.
// So usually one thread, the reader, takes requests, handles them itself and, while they come one
// after the other, waits for the next one awake. Another one reads beside it while there are always
// requests waiting, and in its place when a request is not done promptly: the thread that runs the
// loop looks after that.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "store/base/error.h"
#include "store/base/fd.h"

namespace kilnfs {

/// Where requests come from; used by several threads at once.
class RequestSource {
 public:
  enum class Taken { request, nothing, end };

  /// Room for one request, used by one thread.
  class Place {
   public:
    virtual ~Place() = default;
    /// Takes a request if there is one; never blocks. A failure ends the loop.
    virtual Expected<Taken> take() = 0;
    /// Handles what was taken; may block, also until other requests have been handled.
    virtual void handle() = 0;
  };

  virtual ~RequestSource() = default;
  virtual std::unique_ptr<Place> place() = 0;
  /// Readable while there is something to take. Owned by the source.
  virtual int descriptor() const = 0;
};

class RequestLoop {
 public:
  struct Options {
    size_t threads = 64;                   // at most, besides the one that runs the loop
    std::chrono::milliseconds idle{5000};  // after which a thread ends that is not needed
  };

  explicit RequestLoop(RequestSource& source) : RequestLoop(source, Options()) {}
  RequestLoop(RequestSource& source, Options options);
  RequestLoop(const RequestLoop&) = delete;
  RequestLoop& operator=(const RequestLoop&) = delete;

  /// Serves until the source ends or fails, or stop() was called; then waits until all requests
  /// that were taken have been handled. Once.
  Status run();
  /// From any thread, also before run().
  void stop();

 private:
  struct Reader;
  using Lock = std::unique_lock<std::mutex>;
  using Workers = std::list<std::thread>;

  void work(Workers::iterator self);
  bool becomeReader(Lock& lock, Reader& reader);
  void read(Reader& reader);
  Expected<RequestSource::Taken> await(Reader& reader);
  bool awaitAwake(Reader& reader, Expected<RequestSource::Taken>& taken);
  bool othersRead(Reader& reader);
  void inviteReader();
  void end(Status result);

  void lookOut(Lock& lock);
  bool look();
  bool anyBusy() const;
  bool mayStart() const;
  void keepLookingOut();
  void startWorker(Lock& lock);
  void joinFinished(Lock& lock);

  RequestSource& source_;
  const Options options_;
  const size_t processors_;
  const UniqueFd stopper_;          // an eventfd
  std::atomic<size_t> reading_{0};  // readers; changed under mutex_
  std::atomic<bool> lookingOut_{false};
  std::atomic<bool> ended_{false};

  std::mutex mutex_;
  std::condition_variable wanted_;   // a reader is, or the loop ended
  std::condition_variable lookout_;  // the loop's own thread has something to do
  bool readerWanted_ = true;         // guarded by mutex_, as what follows
  Workers workers_;
  Workers finished_;     // to be joined
  size_t starting_ = 0;  // workers that are not there yet
  size_t waiting_ = 0;   // workers that wait for becoming a reader
  std::list<Reader*> readers_;
  Status result_;
};

}  // namespace kilnfs
