#include "fs/own_nodes.h"

#include <fcntl.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace kilnfs {

void OwnDirectory::readdir(Reply reply, off_t offset, size_t size, bool plus) {
  const auto number = static_cast<uint64_t>(offset) >> kIndexBits;
  const auto at = static_cast<size_t>(offset) & ((size_t{1} << kIndexBits) - 1);
  if (offset != 0) {
    if (const auto listing = remembered(number)) {
      return give(std::move(reply), *listing, at, size, plus);
    }
  }
  auto self = std::static_pointer_cast<OwnDirectory>(shared_from_this());
  mount_.later(std::move(reply), [self, at, size, plus](Reply held) {
    self->give(std::move(held), *self->listNow(), at, size, plus);
  });
}

std::shared_ptr<const OwnDirectory::Listing> OwnDirectory::remembered(uint64_t number) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(listings_.begin(), listings_.end(),
                                  [&](const auto& known) { return known->number == number; });
  return found != listings_.end() ? *found : nullptr;
}

std::shared_ptr<const OwnDirectory::Listing> OwnDirectory::listNow() {
  auto items = list();
  items.insert(items.begin(), {{".", number(), S_IFDIR}, {"..", 1, S_IFDIR}});
  const std::lock_guard lock(mutex_);
  if (!listings_.empty() && listings_.back()->items == items) return listings_.back();
  listings_.push_back(std::make_shared<Listing>(Listing{++lastListing_, std::move(items)}));
  if (listings_.size() > kRemembered) listings_.pop_front();
  return listings_.back();
}

void OwnDirectory::give(Reply reply, const Listing& listing, size_t from, size_t size, bool plus) {
  DirectoryAnswer answer(reply, size);
  for (size_t i = from; i < listing.items.size(); ++i) {
    const ListItem& item = listing.items[i];
    const auto next = static_cast<off_t>((listing.number << kIndexBits) | (i + 1));
    EntryAnswer entry;
    entry.attributes.st_ino = item.ino;
    entry.attributes.st_mode = item.type;
    if (!(plus ? answer.addPlus(item.name.c_str(), entry, next)
               : answer.add(item.name.c_str(), item.ino, item.type, next))) {
      break;
    }
  }
  // What it lists changes behind the kernel's back.
  reply.data(answer.uncachedBytes());
}

void OwnDirectory::answer(Reply reply, const std::shared_ptr<OwnNode>& node) {
  mount_.answerEntry(std::move(reply), NodeRef(node), node->attributes(), 0,
                     node->attributesTimeout());
}

EventfulDirectory::EventfulDirectory(Mount& mount, mode_t mode,
                                     std::function<Stale(const nlohmann::json& event)> stale)
    : OwnDirectory(mount, mode),
      subscription_(mount.store().events().subscribe(
          [this, stale = std::move(stale)](const nlohmann::json& event) {
            Stale found = stale(event);
            if (found.name.empty()) return;
            mount_.staleNames.drop(number(), std::move(found.name), found.gone);
          })) {}

namespace {

class TextHandle : public Handle {
 public:
  explicit TextHandle(std::string text) : text_(std::move(text)) {}
  void read(Reply reply, off_t offset, size_t size) override {
    const auto at = static_cast<size_t>(offset);
    reply.data(at < text_.size() ? std::string_view(text_).substr(at, size) : std::string_view());
  }

 private:
  const std::string text_;
};

}  // namespace

void TextFile::open(Reply reply, int flags) {
  if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0) return reply.error(EPERM);
  auto self = std::static_pointer_cast<TextFile>(shared_from_this());
  mount_.later(std::move(reply), [self](Reply held) {
    OpenAnswer answer;
    answer.direct = true;  // it has no size, so nothing may believe that
    self->mount_.answerOpen(std::move(held), std::make_shared<TextHandle>(self->text_()), answer);
  });
}

}  // namespace kilnfs
