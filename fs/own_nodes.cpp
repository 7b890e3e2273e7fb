#include "fs/own_nodes.h"

#include <fcntl.h>

namespace kilnfs {

/// An open listing: taken when it is read from the start, then given piece by piece.
class ListHandle : public Handle {
 public:
  ListHandle(Mount& mount, std::shared_ptr<OwnDirectory> directory)
      : mount_(mount), directory_(std::move(directory)) {}

  void readdir(Reply reply, off_t offset, size_t size, bool plus) override {
    if (offset != 0) return give(std::move(reply), offset, size, plus);
    auto self = std::static_pointer_cast<ListHandle>(shared_from_this());
    mount_.later(std::move(reply), [self, size, plus](Reply held) {
      auto items = self->directory_->list();
      items.insert(items.begin(), {{".", self->directory_->number(), S_IFDIR}, {"..", 1, S_IFDIR}});
      {
        const std::lock_guard lock(self->mutex_);
        self->items_ = std::move(items);
      }
      self->give(std::move(held), 0, size, plus);
    });
  }

 private:
  void give(Reply reply, off_t offset, size_t size, bool plus) {
    DirectoryAnswer answer(reply, size);
    {
      const std::lock_guard lock(mutex_);
      for (auto i = static_cast<size_t>(offset); i < items_.size(); ++i) {
        const ListItem& item = items_[i];
        const auto next = static_cast<off_t>(i + 1);
        EntryAnswer entry;
        entry.attributes.st_ino = item.ino;
        entry.attributes.st_mode = item.type;
        if (!(plus ? answer.addPlus(item.name.c_str(), entry, next)
                   : answer.add(item.name.c_str(), item.ino, item.type, next))) {
          break;
        }
      }
    }
    reply.data(answer.bytes());
  }

  Mount& mount_;
  const std::shared_ptr<OwnDirectory> directory_;
  std::mutex mutex_;
  std::vector<ListItem> items_;  // guarded by mutex_
};

void OwnDirectory::opendir(Reply reply) {
  auto self = std::static_pointer_cast<OwnDirectory>(shared_from_this());
  mount_.answerOpen(std::move(reply), std::make_shared<ListHandle>(mount_, std::move(self)), {});
}

void OwnDirectory::statfs(Reply reply) {
  const auto space = mount_.store().df();
  if (!space) return reply.error(space.error());
  struct statvfs st = {};
  st.f_bsize = st.f_frsize = 4096;
  st.f_namemax = 255;
  st.f_blocks = space->totalBytes / 4096;
  st.f_bfree = st.f_bavail = space->freeBytes / 4096;
  st.f_files = space->totalInodes;
  st.f_ffree = st.f_favail = space->freeInodes;
  reply.statistics(st);
}

void OwnDirectory::answer(Reply reply, const std::shared_ptr<OwnNode>& node) {
  mount_.answerEntry(std::move(reply), NodeRef(node), node->attributes(), 0, 0);
}

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
