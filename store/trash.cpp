#include "store/trash.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "store/base/remove_tree.h"

namespace kilnfs {

Trash::Trash(const Area& bin) : bin_(bin), thread_([this] { threadMain(); }) {}

Trash::~Trash() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    tryAgain();
  }
  wake_.notify_all();
  thread_.join();
}

Status Trash::take(const Area& from, const std::string& name, TreeRoot* tree) {
  std::string binned;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      binned = fmt::format(".trash.{}", next_++);
    }
    auto ok = renameInStore(from, name, bin_, binned, tree);
    if (ok) break;
    if (ok.error().code != EEXIST) return ok;  // else a crash left that name: the next one
  }
  adopt(binned);
  return {};
}

void Trash::adopt(const std::string& name) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(name);
  }
  wake_.notify_all();
}

size_t Trash::pending() const {
  const std::lock_guard lock(mutex_);
  return queue_.size() + failed_.size() + (busy_ ? 1 : 0);
}

void Trash::wait() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return queue_.empty() && !busy_; });
}

void Trash::tryAgain() {
  std::move(failed_.begin(), failed_.end(), std::back_inserter(queue_));
  failed_.clear();
}

Status Trash::drain() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return queue_.empty() && !busy_; });
  tryAgain();
  wake_.notify_all();
  idle_.wait(lock, [this] { return queue_.empty() && !busy_; });
  if (failed_.empty()) return {};
  return Failure(error_);
}

void Trash::threadMain() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const std::string name = queue_.front();
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    auto ok = removeTree(bin_.fd.get(), name);
    if (!ok) spdlog::error("{}/{}: {}", bin_.path, name, ok.error().message);
    lock.lock();
    if (!ok && !stopping_) failed_.push_back(name);
    if (!ok) error_ = ok.error();
    busy_ = false;
    if (queue_.empty()) idle_.notify_all();
  }
}

}  // namespace kilnfs
