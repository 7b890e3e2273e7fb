#include "store/control/followed_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <nlohmann/json.hpp>
#include <optional>

namespace kilnfs {

/// Wakes at events of the build, when interrupted, and after a while; those from its making on
/// count. Nobody tells of what is written to the log, so that has to be looked for: a watch by
/// inotify would do, but of those a user has few (128), for all programs together.
class FollowedLog::Waiter {
 public:
  Waiter(Events& events, const Id& id, Interrupt& interrupt)
      : events_(events), interrupt_(interrupt) {
    const auto waker = [state = state_] {
      {
        const std::lock_guard lock(state->mutex);
        state->woken = true;
      }
      state->changed.notify_all();
    };
    subscription_ = events_.subscribe([waker, id = id.str()](const nlohmann::json& event) {
      const auto about = event.find("id");
      if (about != event.end() && *about == id) waker();
    });
    interrupt_.onRaise(waker);
  }
  ~Waiter() { events_.unsubscribe(subscription_); }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  /// Each time longer: who has been silent for a while goes on with that.
  Status wait() {
    constexpr std::chrono::milliseconds kLongest{200};
    {
      std::unique_lock lock(state_->mutex);
      state_->changed.wait_for(lock, pause_, [this] { return state_->woken; });
      state_->woken = false;
    }
    pause_ = std::min(2 * pause_, kLongest);
    if (interrupt_.raised()) return fail(EINTR, "interrupted");
    return {};
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool woken = false;  // guarded by mutex
  };
  Events& events_;
  Interrupt& interrupt_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();  // the waker may outlive us
  std::chrono::milliseconds pause_{10};
  int subscription_ = 0;
};

Expected<std::unique_ptr<FollowedLog>> FollowedLog::open(Store& store, const Builds& builds,
                                                         const Id& id) {
  if (!builds.underWay(id) && !store.logFile(id)) {
    return fail(ENOENT, fmt::format("{}: no such build, and no log of it", id.str()));
  }
  return std::unique_ptr<FollowedLog>(new FollowedLog(store, builds, id));
}

/// True if there is a log that is not among the parts yet; it becomes the last one.
bool FollowedLog::takeNext() {
  // What an earlier build left is not ours: until a build has made its log there is none.
  const auto status = builds_.status(id_);
  if (builds_.underWay(id_) && status && !status->logged) return false;
  const auto path = store_.logFile(id_);
  if (!path) return false;
  UniqueFd fd(::open(path->c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  struct stat fresh = {};
  struct stat last = {};
  if (!fd.valid() || ::fstat(fd.get(), &fresh) != 0) return false;
  const std::lock_guard lock(mutex_);
  if (!parts_.empty()) {
    if (::fstat(parts_.back().fd.get(), &last) != 0 || last.st_ino == fresh.st_ino) return false;
    parts_.back().size = static_cast<uint64_t>(last.st_size);
  }
  parts_.push_back({std::move(fd), 0});
  return true;
}

/// What is there now; empty: nothing yet, or nothing any more.
Expected<std::string> FollowedLog::readNow(uint64_t offset, size_t size) const {
  const std::lock_guard lock(mutex_);
  size_t part = 0;
  while (part + 1 < parts_.size() && offset >= parts_[part].size) offset -= parts_[part++].size;
  std::string out;
  if (part == parts_.size()) return out;
  out.resize(size);
  const ssize_t n = ::pread(parts_[part].fd.get(), out.data(), size, static_cast<off_t>(offset));
  if (n < 0) return failErrno("read the log of " + id_.str());
  out.resize(static_cast<size_t>(n));
  return out;
}

Expected<std::string> FollowedLog::read(uint64_t offset, size_t size, Interrupt& interrupt) {
  std::optional<Waiter> waiter;
  for (;;) {
    // Asked first: what was written before the end is part of the log.
    const bool ended = !builds_.underWay(id_);
    auto out = readNow(offset, size);
    if (!out || !out->empty()) return out;
    if (takeNext()) continue;
    if (ended) return std::string();
    if (!waiter) {
      waiter.emplace(store_.events(), id_, interrupt);
    } else if (auto waited = waiter->wait(); !waited) {
      return Failure(waited.error());
    }
  }
}

}  // namespace kilnfs
