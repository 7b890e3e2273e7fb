#include "store/copy_on_write.h"

#include <ctime>
#include <mutex>

namespace kilnfs {
namespace {

template <class Map, class Key>
auto valueOf(const Map& map, const Key& key) -> std::optional<typename Map::mapped_type> {
  const auto it = map.find(key);
  if (it == map.end()) return std::nullopt;
  return it->second;
}

bool same(const struct timespec& a, const struct timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

}  // namespace

void CopyOnWrite::addStub(const BackingId& placeholder, Stub stub, const BackingId& origin) {
  const std::unique_lock lock(mutex_);
  if (stub.ownAttributes) root_ = placeholder;
  stubs_[placeholder] = std::move(stub);
  changeTimes_.erase(placeholder);  // of a directory that had its number before
  origins_[placeholder] = origin;
}

void CopyOnWrite::removeStub(const BackingId& placeholder) {
  const std::unique_lock lock(mutex_);
  if (root_ == placeholder) root_.reset();
  stubs_.erase(placeholder);
  if (const auto it = changeTimes_.find(placeholder);
      it != changeTimes_.end() && it->second.always) {
    changeTimes_.erase(it);
  }
}

void CopyOnWrite::forget(const BackingId& id) {
  const std::unique_lock lock(mutex_);
  stubs_.erase(id);
  origins_.erase(id);
  changeTimes_.erase(id);
}

std::optional<CopyOnWrite::Stub> CopyOnWrite::stub(const BackingId& placeholder) const {
  const std::shared_lock lock(mutex_);
  return valueOf(stubs_, placeholder);
}

bool CopyOnWrite::untouched() const {
  const std::shared_lock lock(mutex_);
  return root_.has_value();
}

std::unordered_map<BackingId, CopyOnWrite::Stub, HashBackingId> CopyOnWrite::stubs() const {
  const std::shared_lock lock(mutex_);
  return stubs_;
}

void CopyOnWrite::addShared(const BackingId& file) {
  const std::unique_lock lock(mutex_);
  shared_.insert(file);
}

void CopyOnWrite::removeShared(const BackingId& file) {
  const std::unique_lock lock(mutex_);
  shared_.erase(file);
}

bool CopyOnWrite::isShared(const BackingId& file) const {
  const std::shared_lock lock(mutex_);
  return shared_.count(file) != 0;
}

std::optional<CopyOnWrite::Group> CopyOnWrite::group(const BackingId& file) const {
  const std::shared_lock lock(mutex_);
  return valueOf(groups_, file);
}

void CopyOnWrite::setGroup(const BackingId& file, Group group) {
  const std::unique_lock lock(mutex_);
  if (group.replaced()) canonical_[group.id] = file;
  groups_[file] = std::move(group);
}

std::unordered_map<BackingId, CopyOnWrite::Group, HashBackingId> CopyOnWrite::groups() const {
  const std::shared_lock lock(mutex_);
  return groups_;
}

BackingId CopyOnWrite::canonical(const BackingId& id) const {
  {
    const std::shared_lock lock(mutex_);
    if (const auto found = valueOf(canonical_, id)) return *found;
  }
  return base_->standsFor(id);
}

BackingId CopyOnWrite::origin(const BackingId& id) const {
  const std::shared_lock lock(mutex_);
  return valueOf(origins_, id).value_or(id);
}

void CopyOnWrite::setOrigin(const BackingId& id, const BackingId& origin) {
  const std::unique_lock lock(mutex_);
  origins_[id] = origin;
}

void CopyOnWrite::keepChangeTime(const BackingId& id, const struct timespec& shown,
                                 const struct stat& now) {
  const std::unique_lock lock(mutex_);
  changeTimes_[id] = {shown, false, now.st_ctim, now.st_mtim};
}

void CopyOnWrite::showChangeTime(const BackingId& id, const struct timespec& shown) {
  const std::unique_lock lock(mutex_);
  changeTimes_.try_emplace(id, ChangeTime{shown, true, {}, {}});
}

void CopyOnWrite::changed(const BackingId& id) {
  const std::unique_lock lock(mutex_);
  const auto it = changeTimes_.find(id);
  if (it == changeTimes_.end()) return;
  if (it->second.always) {
    ::clock_gettime(CLOCK_REALTIME, &it->second.shown);
  } else {
    changeTimes_.erase(it);
  }
}

struct timespec CopyOnWrite::changeTime(const BackingId& id, const struct stat& st) const {
  const std::shared_lock lock(mutex_);
  const auto it = changeTimes_.find(id);
  if (it == changeTimes_.end()) return st.st_ctim;
  // The time of modification too: the clock of changes may be too coarse to tell.
  const bool asKept = it->second.always ||
                      (same(it->second.ctime, st.st_ctim) && same(it->second.mtime, st.st_mtim));
  return asKept ? it->second.shown : st.st_ctim;
}

}  // namespace kilnfs
