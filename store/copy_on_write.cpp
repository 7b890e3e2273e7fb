#include "store/copy_on_write.h"

#include <mutex>

namespace kilnfs {
namespace {

template <class Map, class Key>
auto valueOf(const Map& map, const Key& key) -> std::optional<typename Map::mapped_type> {
  const auto it = map.find(key);
  if (it == map.end()) return std::nullopt;
  return it->second;
}

}  // namespace

void CopyOnWrite::addStub(const BackingId& placeholder, Stub stub, const BackingId& origin) {
  const std::unique_lock lock(mutex_);
  if (stub.ownAttributes) root_ = placeholder;
  stubs_[placeholder] = std::move(stub);
  origins_[placeholder] = origin;
}

void CopyOnWrite::removeStub(const BackingId& placeholder) {
  const std::unique_lock lock(mutex_);
  if (root_ == placeholder) root_.reset();
  stubs_.erase(placeholder);
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
  if (!group.file.empty()) canonical_[group.id] = file;
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

}  // namespace kilnfs
