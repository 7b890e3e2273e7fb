// Which results are in use, and what follows from it.
#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "store/results.h"

namespace kilnfs {

std::optional<std::string> Results::unreadTree(const Id& id) const {
  const std::lock_guard lock(unreadMutex_);
  const auto found = unread_.find(id.str());
  return found != unread_.end() ? std::optional(found->second) : std::nullopt;
}

Expected<bool> Results::stores(const Id& id) const {
  if (unreadTree(id)) {
    return fail(EIO, fmt::format("{} is stored, but could not be read when the store was opened: "
                                 "the next start tries again; `delete` gives it up",
                                 id.str()));
  }
  if (materializer_.has(id)) return true;
  auto there = hasDirectory(core_.layout.result(), id.str());
  if (there) return there;
  return fail(there.error().code,
              fmt::format("{} can't be looked at: {}", id.str(), there.error().message));
}

Status Results::setPinned(const Id& id, bool pinned) {
  const std::lock_guard lock(mutex_);
  if (!has(id) && !unreadTree(id)) {
    // A pin may outlast its result.
    auto pins = core_.database->pins();
    if (!pins) return Failure(pins.error());
    if (pinned || std::find(pins->begin(), pins->end(), id.str()) == pins->end()) {
      return fail(ENOENT, fmt::format("{}: no such result", id.str()));
    }
  }
  return core_.database->setPinned(id.str(), pinned);
}

Status Results::refuseNeeded(const Id& id) const {
  if (bases_.count(id.str()) != 0) {
    return fail(EBUSY, fmt::format("a running build uses {} as its base", id.str()));
  }
  auto row = core_.database->build(id.str());
  if (!row) return Failure(row.error());
  if (*row && (*row)->pinned) {
    return fail(EBUSY, fmt::format("{} is pinned: unpin it first", id.str()));
  }
  return {};
}

std::string Results::useOf(const Id& id) const {
  const std::lock_guard lock(mutex_);
  return useOfLocked(id);
}

std::string Results::useOfLocked(const Id& id) const {
  if (bases_.count(id.str()) != 0) return "a running build uses it as its base";
  for (const auto* known : {&plain_, &known_}) {
    const auto slot = known->find(id.str());
    const auto snapshot = slot != known->end() ? slot->second.lock() : nullptr;
    if (snapshot && snapshot->openFiles() > 0) return "a file in it is open";
  }
  return {};
}

Status Results::removeUnused(const Id& id) {
  const std::lock_guard lock(mutex_);
  if (!has(id)) return fail(ENOENT, "it was deleted meanwhile");
  if (const std::string use = useOfLocked(id); !use.empty()) return fail(EBUSY, use);
  if (auto ok = refuseNeeded(id); !ok) return ok;
  auto order = withChildren(id, false);
  if (!order) return Failure(order.error());
  return holds_.unlessHeld(id, [&] { return removeAll(*order); });
}

void Results::forgetDeleted() {
  const std::lock_guard lock(mutex_);
  std::erase_if(rowsLeft_, [this](const Id& id) {
    // What is built anew has taken the row over, or is about to.
    if (building_.count(id.str()) != 0) return false;
    const auto there = stores(id);
    if (!there) return false;
    return *there || core_.database->removeBuild(id.str()).has_value();
  });
}

Expected<bool> Results::isMissing(const Id& id, bool forget) {
  const std::lock_guard lock(mutex_);
  const auto there = stores(id);
  if (!there) return there;
  // What is being saved has its row first.
  if (*there || building_.count(id.str()) != 0) return false;
  auto row = core_.database->build(id.str());
  if (!row) return Failure(row.error());
  if (!*row || !forget) return row->has_value();
  core_.manifests.forget(id);
  known_.erase(id.str());
  plain_.erase(id.str());
  if (auto ok = core_.database->abandonBuild(id.str()); !ok) return Failure(ok.error());
  return true;
}

/// Those that could not be read and lie over it, be it their parent or further away: without it
/// they would be dropped at the next start.
Expected<std::vector<std::string>> Results::unreadOver(const std::string& base) const {
  std::vector<std::string> found;
  const auto unread = [this] {
    const std::lock_guard lock(unreadMutex_);
    return unread_;
  }();
  if (unread.empty()) return found;
  auto rows = core_.database->sealed();
  if (!rows) return Failure(rows.error());
  for (const SealedRow& row : *rows) {
    const bool over = std::any_of(row.stubs.begin(), row.stubs.end(),
                                  [&](const auto& stub) { return stub.base == base; });
    if (over && unread.count(row.id) != 0) found.push_back(row.id);
  }
  return found;
}

Expected<std::string> Results::setAside(const Id& id) {
  const std::lock_guard lock(mutex_);
  const std::string& name = id.str();
  if (bases_.count(name) != 0) return fail(EBUSY, "a running build uses it as its base");
  // What is not plain yet may lie over it, and would not find it after a restart.
  if (materializer_.pending() > 0) return fail(EBUSY, "results are still being put in place");
  const auto over = unreadOver(name);
  if (!over) return Failure(over.error());
  if (!over->empty()) {
    return fail(EBUSY, fmt::format("{}, which could not be read when the store was opened, lies "
                                   "over it",
                                   over->front()));
  }
  const Area& state = core_.layout.state();
  if (::mkdirat(state.fd.get(), "bad", 0700) != 0 && errno != EEXIST) {
    return failErrno("make state/bad");
  }
  if (auto ok = core_.durability.changing(TreeKind::result, name); !ok) return Failure(ok.error());
  const auto held = letGo(id);
  std::string aside = "bad/" + name;
  Status moved = renameInStore(core_.layout.result(), name, state, aside, held.get());
  for (int i = 1; !moved && moved.error().code == EEXIST; ++i) {
    aside = fmt::format("bad/{}.{}", name, i);
    moved = renameInStore(core_.layout.result(), name, state, aside, held.get());
  }
  if (!moved) return Failure(moved.error());
  core_.manifests.forget(id);
  if (auto ok = core_.database->abandonBuild(name); !ok) spdlog::error("{}", ok.error().message);
  core_.events.post({{"event", "result"}, {"id", name}, {"state", "deleted"}, {"aside", aside}});
  return fmt::format("set aside as state/{}", aside);
}

void Results::flushTouched() {
  std::map<std::string, int64_t> times;
  {
    const std::lock_guard lock(mutex_);
    times.swap(touched_);
    // Who has a file open uses it, and goes on to.
    for (const auto* all : {&plain_, &known_}) {
      for (const auto& [id, known] : *all) {
        const auto snapshot = known.lock();
        if (!snapshot) continue;
        const int64_t opened = snapshot->takeLastOpened();
        if (opened == 0 && snapshot->openFiles() == 0) continue;
        int64_t& used = times[id];
        used = std::max(used, snapshot->openFiles() > 0 ? ::time(nullptr) : opened);
      }
    }
  }
  if (times.empty()) return;
  if (auto ok = core_.database->setUsed(times); !ok) spdlog::warn("{}", ok.error().message);
}

}  // namespace kilnfs
