#include "fs/request_loop.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>

#include "fs/patience.h"

namespace kilnfs {
namespace {

using Clock = Patience::Clock;
using Taken = RequestSource::Taken;

// Who takes longer for a request is not waited for: somebody else reads.
constexpr std::chrono::milliseconds kPromptly{1};
// The loop's own thread stops looking when so many looks in a row have found nothing new.
constexpr int kQuietLooks = 20;
// So many requests in a row that were there already: there is work for another thread.
constexpr int kCrowd = 3;
// Looks for a request between two offers of the processor to others.
constexpr int kLooksPerOffer = 8;

// What a reader does: nothing (it is none), or its number of requests so far and whether it is
// handling one.
constexpr uint64_t kOut = 0;
constexpr uint64_t kBusy = 1;
constexpr uint64_t kRequest = 2;

}  // namespace

struct RequestLoop::Reader {
  // Changed by its thread; only while it is busy the lookout may change it, to kOut.
  std::atomic<uint64_t> state{kOut};
  uint64_t requests = kRequest;  // the state while it waits
  uint64_t seen = kOut;          // by the lookout

  std::unique_ptr<RequestSource::Place> place;
  Patience patience;
  Clock::time_point done;  // when the last request was
  int unwaited = 0;        // requests in a row that were there already
};

RequestLoop::RequestLoop(RequestSource& source, Options options)
    : source_(source),
      options_(options),
      processors_(std::max(1U, std::thread::hardware_concurrency())),
      stopper_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Status RequestLoop::run() {
  if (!stopper_.valid()) return fail(EMFILE, "make an eventfd");
  Lock lock(mutex_);
  lookOut(lock);
  while (!workers_.empty() || !finished_.empty()) {
    joinFinished(lock);
    if (!workers_.empty()) lookout_.wait(lock, [this] { return !finished_.empty(); });
  }
  return result_;
}

void RequestLoop::stop() {
  end({});
}

void RequestLoop::end(Status result) {
  const std::lock_guard lock(mutex_);
  if (!result && result_) result_ = std::move(result);
  ended_ = true;
  ::eventfd_write(stopper_.get(), 1);
  wanted_.notify_all();
  lookout_.notify_all();
}

// -- the thread that runs the loop

// Looks every millisecond, but only while requests come.
void RequestLoop::lookOut(Lock& lock) {
  lookingOut_ = true;
  int quiet = 0;
  auto next = Clock::now() + kPromptly;
  while (!ended_) {
    joinFinished(lock);
    startWorker(lock);
    if (quiet == kQuietLooks) {
      lookingOut_ = false;
      // Who becomes busy from now on sees that nobody looks.
      if (!anyBusy()) {
        lookout_.wait(lock,
                      [this] { return ended_ || lookingOut_ || !finished_.empty() || mayStart(); });
      }
      lookingOut_ = true;
      quiet = 0;
      next = Clock::now() + kPromptly;
    } else if (lookout_.wait_until(lock, next) == std::cv_status::timeout) {
      quiet = look() ? 0 : quiet + 1;
      next = Clock::now() + kPromptly;
    }
  }
}

// Goes on without those that are still busy with what they were busy with at the last look. False:
// all is quiet.
bool RequestLoop::look() {
  bool news = false;
  for (Reader* reader : readers_) {
    uint64_t state = reader->state;
    news = news || state != reader->seen || (state & kBusy) != 0;
    if ((state & kBusy) != 0 && state == reader->seen &&
        reader->state.compare_exchange_strong(state, kOut)) {
      --reading_;
    }
    reader->seen = state;
  }
  if (reading_ == 0 && !readerWanted_) {
    readerWanted_ = true;
    wanted_.notify_one();
  }
  return news;
}

bool RequestLoop::anyBusy() const {
  return std::any_of(readers_.begin(), readers_.end(),
                     [](const Reader* reader) { return (reader->state & kBusy) != 0; });
}

bool RequestLoop::mayStart() const {
  return readerWanted_ && waiting_ + starting_ == 0 && workers_.size() < options_.threads;
}

// Threads are made here only: those that handle requests have had their callers' identities.
void RequestLoop::startWorker(Lock& lock) {
  if (!mayStart()) return;
  ++starting_;
  const auto self = workers_.emplace(workers_.end());
  lock.unlock();
  std::error_code failed;
  try {
    *self = std::thread([this, self] { work(self); });
  } catch (const std::system_error& e) {
    failed = e.code();
  }
  lock.lock();
  if (!failed) return;
  --starting_;
  workers_.erase(self);
  if (!workers_.empty()) return;  // those that are there go on
  result_ = fail(failed.value(), "start a thread for requests");
  ended_ = true;
}

void RequestLoop::joinFinished(Lock& lock) {
  auto finished = std::exchange(finished_, {});
  if (finished.empty()) return;
  lock.unlock();
  for (std::thread& thread : finished) thread.join();
  lock.lock();
}

// -- the threads that read and handle requests

void RequestLoop::work(Workers::iterator self) {
  ::pthread_setname_np(::pthread_self(), "requests");
  Reader reader;
  reader.place = source_.place();
  Lock lock(mutex_);
  --starting_;
  const auto known = readers_.insert(readers_.end(), &reader);
  while (becomeReader(lock, reader)) {
    lock.unlock();
    read(reader);
    lock.lock();
  }
  readers_.erase(known);
  finished_.splice(finished_.end(), workers_, self);
  lookout_.notify_one();
}

// False: the thread is not needed any more.
bool RequestLoop::becomeReader(Lock& lock, Reader& reader) {
  while (!ended_ && !readerWanted_) {
    ++waiting_;
    const bool inTime =
        wanted_.wait_for(lock, options_.idle, [this] { return ended_ || readerWanted_; });
    --waiting_;
    if (!inTime && waiting_ != 0) return false;
  }
  if (ended_) return false;
  readerWanted_ = false;
  ++reading_;
  reader.state = reader.requests;
  reader.unwaited = 0;
  reader.done = Clock::now();
  return true;
}

// Takes and handles requests until others do.
void RequestLoop::read(Reader& reader) {
  for (;;) {
    const auto taken = await(reader);
    if (!taken) return end(Failure(taken.error()));
    if (*taken == Taken::end) return end({});
    if (reader.state == kOut) return;
    if (*taken == Taken::nothing) continue;
    if (reader.unwaited > kCrowd) {
      reader.unwaited = 0;
      inviteReader();
    }
    uint64_t busy = reader.requests + kBusy;
    reader.requests += kRequest;
    reader.state = busy;
    if (!lookingOut_) keepLookingOut();
    reader.place->handle();
    reader.done = Clock::now();
    if (!reader.state.compare_exchange_strong(busy, reader.requests)) return;
  }
}

void RequestLoop::inviteReader() {
  const std::lock_guard lock(mutex_);
  if (readerWanted_ || reading_ >= processors_) return;
  readerWanted_ = true;
  if (waiting_ != 0) {
    wanted_.notify_one();
  } else {
    lookout_.notify_one();
  }
}

void RequestLoop::keepLookingOut() {
  const std::lock_guard lock(mutex_);
  lookingOut_ = true;
  lookout_.notify_one();
}

// True: others do, and this one has stopped.
bool RequestLoop::othersRead(Reader& reader) {
  if (reading_ == 1) return false;
  const std::lock_guard lock(mutex_);
  if (reading_ == 1) return false;
  --reading_;
  reader.state = kOut;
  return true;
}

// Waits for a request: awake if that is worth it, then asleep. `nothing`: look again, if this is
// still a reader.
Expected<Taken> RequestLoop::await(Reader& reader) {
  if (ended_) return Taken::end;
  auto taken = reader.place->take();
  if (!taken || *taken != Taken::nothing) {
    ++reader.unwaited;
    reader.patience.came(Clock::duration::zero(), Patience::Wait::none);
    return taken;
  }
  reader.unwaited = 0;
  if (othersRead(reader)) return taken;
  auto wait = Patience::Wait::awake;
  const bool patient = processors_ > 1 && reader.patience.worthIt(Clock::now());
  if (!patient || !awaitAwake(reader, taken)) {
    wait = patient ? Patience::Wait::both : Patience::Wait::asleep;
    pollfd polled[] = {{source_.descriptor(), POLLIN, 0}, {stopper_.get(), POLLIN, 0}};
    if (::poll(polled, 2, -1) < 0 && errno != EINTR) return failErrno("wait for requests");
    if (ended_) return Taken::end;
    taken = reader.place->take();
  }
  if (taken && *taken == Taken::request) {
    reader.patience.came(Clock::now() - reader.done, wait);
  }
  return taken;
}

// False: nothing came.
bool RequestLoop::awaitAwake(Reader& reader, Expected<Taken>& taken) {
  auto now = Clock::now();
  const auto until = reader.done + Patience::kAwake;
  for (int looks = 1; now < until && !ended_; ++looks) {
    if (looks % kLooksPerOffer == 0) {
      ::sched_yield();
      const auto back = Clock::now();
      if (back - now > Patience::kTaken) {
        reader.patience.crowded(back);
        return false;
      }
    }
    taken = reader.place->take();
    if (!taken || *taken != Taken::nothing) return true;
    now = Clock::now();
  }
  return false;
}

}  // namespace kilnfs
