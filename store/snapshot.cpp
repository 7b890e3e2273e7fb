#include "store/snapshot.h"

#include <fcntl.h>

#include "store/links.h"

namespace kilnfs {
namespace {

/// The gift that `path` is, or is below; end() if there is none.
template <class Gifts>
auto giftAbove(const Gifts& gifts, const std::string& path) {
  for (size_t end = path.size(); end != std::string::npos && end > 0;
       end = path.rfind('/', end - 1)) {
    const auto it = gifts.find(path.substr(0, end));
    if (it != gifts.end()) return it;
  }
  return gifts.end();
}

}  // namespace

Expected<UniqueFd> Snapshot::open(const std::string& below, int flags) const {
  const std::shared_lock lock(giftsMutex_);
  if (!gifts_.empty()) {
    const auto gift = giftAbove(gifts_, below);
    if (gift != gifts_.end()) {
      return successor_->open(gift->second + below.substr(gift->first.size()), flags);
    }
  }
  return TreeRoot::open(below, flags);
}

Snapshot::Giving::Giving(Snapshot& from, std::shared_ptr<Snapshot> to)
    : from_(from), lock_(from.giftsMutex_) {
  from_.successor_ = std::move(to);
}

void Snapshot::Giving::add(Gift gift) {
  from_.placeholders_[gift.placeholder] = gift.id;
  from_.gifts_[std::move(gift.from)] = std::move(gift.to);
}

BackingId Snapshot::standsFor(const BackingId& found) const {
  const std::shared_lock lock(giftsMutex_);
  const auto it = placeholders_.find(found);
  return it != placeholders_.end() ? it->second : found;
}

nlink_t Snapshot::linksInside(const BackingId& file) const {
  const std::lock_guard lock(linksMutex_);
  if (!counted_) {
    countLinks([this](const std::string& path) { return open(path, O_RDONLY | O_DIRECTORY); },
               [this](const BackingId& found, nlink_t links) { links_.emplace(found, links); });
    counted_ = true;
  }
  const auto it = links_.find(file);
  return it != links_.end() ? it->second : 1;
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
