#include "store/materializer.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "store/base/fault.h"
#include "store/make_plain.h"

namespace kilnfs {
namespace {

// How long after a failure (a full disk, most likely) it is tried again.
constexpr std::chrono::seconds kRetry{30};
// For so long the processors and the disk are left to whoever waits for the build to end.
constexpr std::chrono::milliseconds kGrace{10};

/// Nobody waits for this thread: builds come first.
void yieldToOthers() {
  constexpr int kNice = 10;
  constexpr int kIoprioWhoProcess = 1;
  constexpr int kIdleClass = 3 << 13;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), kNice);
  ::syscall(SYS_ioprio_set, kIoprioWhoProcess, 0, kIdleClass);
}

/// A sealed tree on disk, which outlives its turn here for those who have it open.
struct OnDisk {
  OnDisk(Core& itsCore, std::string itsTmp) : core(itsCore), tmp(std::move(itsTmp)) {}
  Core& core;
  std::string tmp;
  std::atomic<bool> superseded{false};
};

}  // namespace

struct Materializer::Item {
  Item(Core& core, Tree tree)
      : id(std::move(tree.id)),
        shared(std::move(tree.shared)),
        onDisk(std::make_shared<OnDisk>(core, std::move(tree.tmp))) {
    const Area& area = core.layout.resultTmp();
    snapshot = {new Snapshot(area.fd.get(), area.path, onDisk->tmp, "results/" + id.str()),
                [onDisk = onDisk](Snapshot* gone) {
                  if (onDisk->superseded) {
                    const Area& from = onDisk->core.layout.resultTmp();
                    (void)onDisk->core.trash.take(from, onDisk->tmp, gone);
                  }
                  delete gone;
                }};
    snapshot->refer(std::move(tree.elsewhere));
    if (tree.links) snapshot->setLinks(std::move(*tree.links));
    if (tree.over) snapshot->lieOver(std::move(*tree.over));
  }

  const Id id;
  const std::chrono::steady_clock::time_point added = std::chrono::steady_clock::now();
  const SharedFiles shared;
  const std::shared_ptr<OnDisk> onDisk;
  std::shared_ptr<Snapshot> snapshot;
  Interrupt interrupt;  // raised when it is removed
  Error error;          // why it failed last; guarded by the Materializer's mutex
};

Materializer::Materializer(Core& core, Placed placed)
    : core_(core), placed_(std::move(placed)), thread_([this] { threadMain(); }) {}

Materializer::~Materializer() {
  if (auto ok = drain(); !ok) spdlog::warn("given up: {}", ok.error().message);
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::shared_ptr<Snapshot> Materializer::add(Tree tree) {
  auto item = std::make_shared<Item>(core_, std::move(tree));
  auto snapshot = item->snapshot;
  {
    const std::lock_guard lock(mutex_);
    items_.emplace(item->id, item);
    queue_.push_back(std::move(item));
  }
  wake_.notify_all();
  return snapshot;
}

bool Materializer::has(const Id& id) const {
  const std::lock_guard lock(mutex_);
  return items_.count(id) != 0;
}

std::shared_ptr<Snapshot> Materializer::find(const Id& id) const {
  const std::lock_guard lock(mutex_);
  const auto it = items_.find(id);
  return it != items_.end() ? it->second->snapshot : nullptr;
}

std::vector<std::string> Materializer::names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  names.reserve(items_.size());
  for (const auto& [id, item] : items_) names.push_back(id.str());
  return names;
}

Status Materializer::remove(const Id& id) {
  ItemPtr item;  // its snapshot goes after the lock
  {
    const std::lock_guard lock(mutex_);
    const auto it = items_.find(id);
    if (it == items_.end()) return fail(ENOENT);
    auto ok = core_.trash.take(core_.layout.resultTmp(), it->second->onDisk->tmp,
                               it->second->snapshot.get());
    if (!ok) return ok;
    item = std::move(it->second);
    item->snapshot->setLayer(nullptr);
    items_.erase(it);
    std::erase(queue_, item);
    std::erase(failed_, item);
    idle_.notify_all();
  }
  item->interrupt.raise();
  return {};
}

bool Materializer::isHere(const ItemPtr& item) const {
  const auto it = items_.find(item->id);
  return it != items_.end() && it->second == item;
}

size_t Materializer::pending() const {
  const std::lock_guard lock(mutex_);
  return items_.size();
}

Status Materializer::drain() {
  std::unique_lock lock(mutex_);
  std::move(failed_.begin(), failed_.end(), std::back_inserter(queue_));
  failed_.clear();
  ++draining_;
  again_ = busy_;
  wake_.notify_all();
  idle_.wait(lock, [this] { return queue_.empty() && !busy_; });
  --draining_;
  if (failed_.empty()) return {};
  return Failure(failed_.front()->error);
}

void Materializer::threadMain() {
  yieldToOthers();
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto something = [this] { return stopping_ || !queue_.empty(); };
    if (failed_.empty()) {
      wake_.wait(lock, something);
    } else if (!wake_.wait_for(lock, kRetry, something)) {
      std::move(failed_.begin(), failed_.end(), std::back_inserter(queue_));
      failed_.clear();
    }
    if (stopping_) return;
    if (queue_.empty()) continue;  // what had failed was deleted
    const auto due = queue_.front()->added + kGrace;
    wake_.wait_until(lock, due, [this] { return stopping_ || draining_ > 0; });
    if (stopping_ || queue_.empty()) continue;  // it may have been removed
    ItemPtr item = queue_.front();
    queue_.pop_front();
    busy_ = true;
    again_ = false;
    const std::string name = fmt::format("plain.{}.{}", next_++, item->id.str());
    lock.unlock();
    const Status ok = makeOne(item, name);
    lock.lock();
    if (!ok && isHere(item)) {
      item->error = ok.error();
      if (again_) {
        queue_.push_back(item);
      } else {
        failed_.push_back(item);
      }
    }
    lock.unlock();
    item.reset();
    lock.lock();
    busy_ = false;
    if (queue_.empty()) idle_.notify_all();
  }
}

Status Materializer::makeOne(const ItemPtr& item, const std::string& name) {
  const Area& area = core_.layout.resultTmp();
  auto links = makePlain({*item->snapshot, area, name, core_.mode, item->shared}, item->interrupt);
  // Open until all is done: as long as it is, no other directory has its inode number.
  const UniqueFd root(::openat(area.fd.get(), name.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  // One that is safe on disk must be so all the time: what takes its place is on disk before it
  // does, and the mark stays. Where syncing fails nothing is safe any more.
  const bool safe = links && core_.durability.marked(TreeKind::result, item->id.str()) &&
                    core_.durability.flush();
  Status ok = links ? place(item, name, safe) : Status(Failure(links.error()));
  if (ok) {
    placed_(item->id, *item->snapshot, root, std::move(*links));
    // Not before it is certain where it will be found. The sealed tree stays for as long.
    if (!safe || core_.durability.flush()) forget(item);
    return {};
  }
  Error error = ok.error();
  error.message = fmt::format("making {} plain: {}", item->id.str(), textOf(error));
  if (!item->interrupt.raised()) spdlog::error("{}", error.message);
  if (auto gone = core_.trash.take(area, name); !gone && gone.error().code != ENOENT) {
    spdlog::warn("{}", gone.error().message);
  }
  return Failure(std::move(error));
}

Status Materializer::place(const ItemPtr& item, const std::string& name, bool safe) {
  faultPoint("result.plain");
  // Under the lock: whoever asks finds it either here or in result/.
  const std::lock_guard lock(mutex_);
  if (!isHere(item)) return fail(EINTR);  // removed
  Status ok;
  if (!safe) ok = core_.durability.changing(TreeKind::result, item->id.str());
  if (ok) ok = renameInStore(core_.layout.resultTmp(), name, core_.layout.result(), item->id.str());
  if (!ok) return ok;
  faultPoint("result.placed");
  if (!safe) core_.durability.committed(TreeKind::result, item->id.str());
  item->onDisk->superseded = true;
  item->snapshot->setLayer(nullptr);  // from now on builds lie over the plain one
  items_.erase(item->id);
  return {};
}

void Materializer::forget(const ItemPtr& item) {
  if (auto row = core_.database->removeSealed(item->id.str(), item->onDisk->tmp); !row) {
    spdlog::warn("{}", row.error().message);  // the next start sees that it is plain
  }
}

}  // namespace kilnfs
