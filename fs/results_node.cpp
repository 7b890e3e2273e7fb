#include <dirent.h>
#include <fcntl.h>

#include "fs/own_nodes.h"
#include "fs/tree_node.h"
#include "store/tree/directory_stream.h"

namespace kilnfs {
namespace {

// However many results there are: straight from the store's directory, without a look at each.
class ResultsHandle : public Handle {
 public:
  ResultsHandle(uint64_t ino, UniqueFd fd) : ino_(ino), stream_(std::move(fd)) {}

  void readdir(Reply reply, off_t offset, size_t size, bool plus) override {
    DirectoryAnswer answer(reply, size);
    const auto done = stream_.read(offset, [&](const DirectoryStream::Item& item) {
      EntryAnswer entry;
      entry.attributes.st_mode = S_IFDIR;
      const std::string name = item.name;
      if (name == ".") {
        entry.attributes.st_ino = ino_;
      } else if (name == "..") {
        entry.attributes.st_ino = 1;
      } else if (Name::valid(name) && (item.type == DT_DIR || item.type == DT_UNKNOWN)) {
        entry.attributes.st_ino = Tree::visibleIno("results/" + name, item.ino);
      } else {
        return true;
      }
      return plus ? answer.addPlus(item.name, entry, item.next)
                  : answer.add(item.name, entry.attributes.st_ino, S_IFDIR, item.next);
    });
    if (!done) return reply.error(done.error());
    reply.data(answer.bytes());
  }

 private:
  const uint64_t ino_;
  DirectoryStream stream_;
};

class Results : public OwnDirectory {
 public:
  explicit Results(Mount& mount) : OwnDirectory(mount, 0755) {}

  void lookup(Reply reply, const std::string& name) override {
    const auto id = Id::parse(name);
    if (!id) return reply.noEntry(kForever);
    auto result = mount_.store().result(*id);
    if (!result) return reply.error(result.error());
    if (!*result) return reply.error(ENOENT);
    touch(*id);
    answerRoot(mount_, std::move(reply), mount_.trees.get(std::move(*result), number()));
  }

  void opendir(Reply reply) override {
    const std::string path = mount_.store().resultDir();
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) return reply.error(errno);
    mount_.answerOpen(std::move(reply), std::make_shared<ResultsHandle>(number(), std::move(fd)),
                      {});
  }

  void rmdir(Reply reply, const std::string& name) override {
    const auto id = Id::parse(name);
    if (!id) return reply.error(ENOENT);
    mount_.later(std::move(reply), [&mount = mount_, id = *id](Reply held) {
      const auto done = mount.store().remove(id, false);
      mount.answerVerb(std::move(held), "rmdir results/" + id.str(), done);
    });
  }

 protected:
  std::vector<ListItem> list() override { return {}; }
  int refusal() const override { return EROFS; }

 private:
  // Each path walk looks the name up; what is used all the time is recorded now and then.
  void touch(const Id& id) {
    constexpr std::chrono::seconds kEvery{10};
    constexpr size_t kRemembered = 4096;
    const auto now = std::chrono::steady_clock::now();
    {
      const std::lock_guard lock(mutex_);
      if (touched_.size() > kRemembered) touched_.clear();
      const auto [it, fresh] = touched_.try_emplace(id, now);
      if (!fresh && now - it->second < kEvery) return;
      it->second = now;
    }
    mount_.later([&mount = mount_, id] { mount.store().touch(id); });
  }

  std::mutex mutex_;
  std::unordered_map<Id, std::chrono::steady_clock::time_point> touched_;  // guarded by mutex_
};

}  // namespace

std::shared_ptr<OwnDirectory> makeResults(Mount& mount) {
  return std::make_shared<Results>(mount);
}

}  // namespace kilnfs
