// events: a stream. A reader that waits costs no thread: its Reply is kept, and answered by one
// worker when something was posted.

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <list>
#include <set>

#include "fs/fuse_compat.h"
#include "fs/own_nodes.h"

namespace kilnfs {
namespace {

class EventsFile;

class EventsHandle : public Handle {
 public:
  EventsHandle(std::shared_ptr<EventsFile> file, bool blocking)
      : file_(std::move(file)), blocking_(blocking) {}

  void read(Reply reply, off_t offset, size_t size) override;
  void poll(Reply reply, PollHandle waker) override;
  void closed() override;

  /// Answers those who wait, if there is something for them, or if `ending`; on a worker.
  void serve(bool ending);

 private:
  struct Waiting {
    Reply reply;
    size_t size;
    std::shared_ptr<Interrupt> interrupt;
  };
  // Locked by the caller:
  std::string next(size_t size);
  bool ready() const;

  const std::shared_ptr<EventsFile> file_;
  const bool blocking_;
  std::mutex mutex_;
  uint64_t from_ = 0;  // guarded by mutex_, as what follows
  std::string rest_;   // of a line that was longer than the reader's buffer
  std::list<Waiting> waiting_;
  PollHandle waker_;
};

class EventsFile : public OwnNode {
 public:
  explicit EventsFile(Mount& mount) : mount_(mount) {}
  ~EventsFile() override { events().unsubscribe(subscription_); }

  void subscribe() {
    subscription_ = events().subscribe([weak = weak_from_this()](const auto&) {
      if (const auto self = weak.lock()) std::static_pointer_cast<EventsFile>(self)->wake();
    });
  }

  struct stat attributes() const override {
    return mount_.ownAttributes(number(), S_IFREG | 0444);
  }

  void open(Reply reply, int flags) override {
    if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0) return reply.error(EPERM);
    auto self = std::static_pointer_cast<EventsFile>(shared_from_this());
    auto handle = std::make_shared<EventsHandle>(self, (flags & O_NONBLOCK) == 0);
    {
      const std::lock_guard lock(mutex_);
      open_.insert(handle);
    }
    OpenAnswer answer;
    answer.direct = true;
    answer.stream = true;
    mount_.answerOpen(std::move(reply), std::move(handle), answer);
  }

  void closed(const std::shared_ptr<EventsHandle>& handle) {
    const std::lock_guard lock(mutex_);
    open_.erase(handle);
  }

  /// Has a worker look after the readers; one run for any number of posts meanwhile.
  void wake() {
    if (scheduled_.exchange(true)) return;
    mount_.later([self = std::static_pointer_cast<EventsFile>(shared_from_this())] {
      self->scheduled_ = false;
      std::set<std::shared_ptr<EventsHandle>> open;
      {
        const std::lock_guard lock(self->mutex_);
        open = self->open_;
      }
      for (const auto& handle : open) handle->serve(false);
    });
  }

  Mount& mount() { return mount_; }
  Events& events() { return mount_.store().events(); }

 private:
  Mount& mount_;
  int subscription_ = 0;
  std::atomic<bool> scheduled_{false};
  std::mutex mutex_;
  std::set<std::shared_ptr<EventsHandle>> open_;  // guarded by mutex_
};

bool EventsHandle::ready() const {
  return !rest_.empty() || file_->events().hasMore(from_);
}

std::string EventsHandle::next(size_t size) {
  if (rest_.empty()) rest_ = file_->events().read(from_, size);
  std::string text = rest_.substr(0, size);
  rest_.erase(0, text.size());
  return text;
}

void EventsHandle::read(Reply reply, off_t, size_t size) {
  std::string text;
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty() && ready()) {
      text = next(size);
    } else if (blocking_) {
      auto interrupt = reply.interruptible();
      waiting_.push_back({std::move(reply), size, interrupt});
      // The waker must not touch the Reply: libfuse holds the request's lock while it calls.
      interrupt->onRaise([file = file_] { file->wake(); });
      return;
    }
  }
  if (text.empty()) return reply.error(EAGAIN);
  reply.data(text);
}

void EventsHandle::serve(bool ending) {
  std::list<std::pair<Waiting, std::string>> answers;
  PollHandle waker;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      const bool interrupted = it->interrupt->raised();
      if (!interrupted && !ending && !ready()) {
        ++it;
        continue;
      }
      std::string text = interrupted || ending ? std::string() : next(it->size);
      answers.emplace_back(std::move(*it), std::move(text));
      it = waiting_.erase(it);
    }
    if (waker_ && (ending || ready())) waker = std::move(waker_);
  }
  for (auto& [waiting, text] : answers) {
    if (waiting.interrupt->raised() && text.empty()) {
      waiting.reply.error(EINTR);
    } else {
      waiting.reply.data(text);
    }
  }
  if (waker) fuse_lowlevel_notify_poll(waker.get());
}

void EventsHandle::poll(Reply reply, PollHandle waker) {
  bool now;
  {
    const std::lock_guard lock(mutex_);
    now = ready();
    std::swap(waker_, waker);  // the former one goes after the lock
  }
  reply.poll(now ? POLLIN | POLLRDNORM : 0);
}

void EventsHandle::closed() {
  file_->closed(std::static_pointer_cast<EventsHandle>(shared_from_this()));
  // Nobody reads a file that is closed, but at the end of a session requests are left over.
  serve(true);
}

}  // namespace

std::shared_ptr<OwnNode> makeEvents(Mount& mount) {
  auto file = std::make_shared<EventsFile>(mount);
  file->subscribe();
  return file;
}

}  // namespace kilnfs
