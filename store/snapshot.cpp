#include "store/snapshot.h"

#include <fcntl.h>

#include <algorithm>

#include "store/links.h"

namespace kilnfs {
namespace {

/// The item of `map` that `path` is, or is below; end() if there is none.
template <class Map>
auto itemAbove(const Map& map, const std::string& path) {
  for (size_t end = path.size(); end != std::string::npos && end > 0;
       end = path.rfind('/', end - 1)) {
    const auto it = map.find(path.substr(0, end));
    if (it != map.end()) return it;
  }
  return map.find({});  // the root may be elsewhere as a whole, which is another's root
}

}  // namespace

Expected<UniqueFd> Snapshot::open(const std::string& below, int flags) const {
  const std::shared_lock lock(elsewhereMutex_);
  const auto item = itemAbove(elsewhere_, below);
  if (item == elsewhere_.end()) return TreeRoot::open(below, flags);
  return item->second.snapshot->open(item->second.path + below.substr(item->first.size()), flags);
}

void Snapshot::insertPlaceholder(const Elsewhere& directory) {
  placeholders_[directory.placeholder] = directory.id;
  if (std::find(others_.begin(), others_.end(), directory.to.snapshot) == others_.end()) {
    others_.push_back(directory.to.snapshot);
  }
  plain_.store(false, std::memory_order_release);
}

void Snapshot::insert(Elsewhere directory) {
  insertPlaceholder(directory);
  elsewhere_[std::move(directory.from)] = std::move(directory.to);
}

void Snapshot::refer(std::vector<Elsewhere> directories) {
  const std::unique_lock lock(elsewhereMutex_);
  for (Elsewhere& directory : directories) insert(std::move(directory));
}

Snapshot::Place Snapshot::resolve(const std::string& path) {
  Place at;
  {
    const std::shared_lock lock(elsewhereMutex_);
    const auto item = itemAbove(elsewhere_, path);
    if (item == elsewhere_.end()) return {shared_from_this(), path};
    at = {item->second.snapshot, item->second.path + path.substr(item->first.size())};
  }
  return at.snapshot->resolve(at.path);
}

// A directory that is elsewhere may have placeholders of its own snapshot in it.
BackingId Snapshot::standsFor(const BackingId& found) const {
  if (plain()) return found;
  std::vector<const Snapshot*> asked{this};
  for (size_t i = 0; i < asked.size(); ++i) {
    const Snapshot& at = *asked[i];
    const std::shared_lock lock(at.elsewhereMutex_);
    const auto it = at.placeholders_.find(found);
    if (it != at.placeholders_.end()) return it->second;
    for (const auto& other : at.others_) {
      if (other->plain() || std::find(asked.begin(), asked.end(), other.get()) != asked.end()) {
        continue;
      }
      asked.push_back(other.get());
    }
  }
  return found;
}

bool Snapshot::isHere(const std::string& path) const {
  const std::shared_lock lock(elsewhereMutex_);
  return itemAbove(elsewhere_, path) == elsewhere_.end();
}

std::shared_ptr<const OverlayLayer> Snapshot::layer() const {
  const std::shared_lock lock(elsewhereMutex_);
  return layer_;
}

void Snapshot::setLayer(std::shared_ptr<const OverlayLayer> layer) {
  const std::unique_lock lock(elsewhereMutex_);
  layer_ = std::move(layer);
}

Status Snapshot::countLinks() const {
  if (counted_) return {};
  auto ok = kilnfs::countLinks(
      [this](const std::string& path) { return open(path, O_RDONLY | O_DIRECTORY); },
      [this](const BackingId& found, nlink_t links) { links_.emplace(found, links); });
  counted_ = ok.has_value();
  return ok;
}

Expected<nlink_t> Snapshot::linksInside(const BackingId& file) const {
  const std::lock_guard lock(linksMutex_);
  if (auto ok = countLinks(); !ok) return Failure(ok.error());
  const auto it = links_.find(file);
  return it != links_.end() ? it->second : 1;
}

Expected<bool> Snapshot::hasLinks() const {
  const std::lock_guard lock(linksMutex_);
  if (auto ok = countLinks(); !ok) return Failure(ok.error());
  return !links_.empty();
}

std::optional<LinkCounts> Snapshot::knownLinks() const {
  const std::lock_guard lock(linksMutex_);
  if (!counted_) return std::nullopt;
  return links_;
}

void Snapshot::setLinks(LinkCounts links) {
  const std::lock_guard lock(linksMutex_);
  links_ = std::move(links);
  counted_ = true;
}

}  // namespace kilnfs
