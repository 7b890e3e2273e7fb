#include "store/tree/directory_cache.h"

#include <chrono>
#include <thread>

namespace kilnfs {
namespace {
constexpr size_t kDescriptors = 512;
}

DirectoryCache& DirectoryCache::ofProcess() {
  // Never destroyed: inodes may be released as late as at exit.
  static auto* const cache = [] {
    auto* const made = new DirectoryCache(kDescriptors);
    std::thread([made] { made->closeUnusedForever(); }).detach();
    return made;
  }();
  return *cache;
}

void DirectoryCache::closeUnusedForever() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      filled_.wait(lock, [this] { return !recent_.empty(); });
    }
    std::this_thread::sleep_for(std::chrono::seconds(1));
    closeUnused();
  }
}

void DirectoryCache::closeUnused() {
  std::list<Kept> closed;  // after the lock
  const std::lock_guard lock(mutex_);
  while (!recent_.empty() && recent_.back().used < period_) {
    where_.erase(recent_.back().directory);
    closed.splice(closed.begin(), recent_, std::prev(recent_.end()));
  }
  ++period_;
}

size_t DirectoryCache::size() const {
  const std::lock_guard lock(mutex_);
  return recent_.size();
}

std::shared_ptr<OpenDirectory> DirectoryCache::find(const Inode& directory) {
  const std::lock_guard lock(mutex_);
  const auto at = where_.find(&directory);
  if (at == where_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, at->second);
  at->second->used = period_;
  return at->second->open;
}

void DirectoryCache::put(const Inode& directory, std::shared_ptr<OpenDirectory> open) {
  std::list<Kept> closed;  // after the lock
  const std::lock_guard lock(mutex_);
  if (const auto at = where_.find(&directory); at != where_.end()) {
    at->second->open.swap(open);
    return;
  }
  recent_.push_front({&directory, std::move(open), period_});
  if (recent_.size() == 1) filled_.notify_one();
  where_.emplace(&directory, recent_.begin());
  if (recent_.size() > limit_) {
    where_.erase(recent_.back().directory);
    closed.splice(closed.begin(), recent_, std::prev(recent_.end()));
  }
}

void DirectoryCache::drop(const Inode& directory) {
  std::list<Kept> closed;  // after the lock
  const std::lock_guard lock(mutex_);
  const auto at = where_.find(&directory);
  if (at == where_.end()) return;
  closed.splice(closed.begin(), recent_, at->second);
  where_.erase(at);
}

}  // namespace kilnfs
