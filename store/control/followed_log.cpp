#include "store/control/followed_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>

namespace kilnfs {

/// Wakes at writes to a log, at events, and when interrupted; those from its making on count.
class FollowedLog::Waiter {
 public:
  Waiter(Events& events, const std::string& path, Interrupt& interrupt)
      : events_(events),
        interrupt_(interrupt),
        wake_(std::make_shared<UniqueFd>(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))),
        watch_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    const auto waker = [wake = wake_] { ::eventfd_write(wake->get(), 1); };
    subscription_ = events_.subscribe([waker](const auto&) { waker(); });
    interrupt_.onRaise(waker);
    if (!path.empty()) ::inotify_add_watch(watch_.get(), path.c_str(), IN_MODIFY);
  }
  ~Waiter() { events_.unsubscribe(subscription_); }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  Status wait() const {
    if (!wake_->valid() || !watch_.valid()) return fail(EMFILE, "follow: no descriptor is free");
    struct pollfd fds[2] = {{wake_->get(), POLLIN, 0}, {watch_.get(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) return failErrno("poll");
    if (interrupt_.raised()) return fail(EINTR, "interrupted");
    return {};
  }

 private:
  Events& events_;
  Interrupt& interrupt_;
  const std::shared_ptr<UniqueFd> wake_;  // shared with wakers that may outlive this object
  const UniqueFd watch_;
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

std::string FollowedLog::lastPath() const {
  const std::lock_guard lock(mutex_);
  return parts_.empty() ? "" : fmt::format("/proc/self/fd/{}", parts_.back().fd.get());
}

Expected<std::string> FollowedLog::read(uint64_t offset, size_t size, Interrupt& interrupt) {
  std::unique_ptr<Waiter> waiter;
  for (;;) {
    // Asked first: what was written before the end is part of the log.
    const bool ended = !builds_.underWay(id_);
    auto out = readNow(offset, size);
    if (!out || !out->empty()) return out;
    if (takeNext()) {
      waiter.reset();
    } else if (ended) {
      return std::string();
    } else if (waiter == nullptr) {
      waiter = std::make_unique<Waiter>(store_.events(), lastPath(), interrupt);
    } else {
      if (auto waited = waiter->wait(); !waited) return Failure(waited.error());
      waiter.reset();
    }
  }
}

}  // namespace kilnfs
