#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fs/own_nodes.h"
#include "fs/tree_node.h"
#include "store/tree/directory_stream.h"

namespace kilnfs {
namespace {

class Results : public EventfulDirectory {
 public:
  // One that is saved may have been there before, and been taken away behind our back.
  explicit Results(Mount& mount)
      : EventfulDirectory(mount, 0755, [](const nlohmann::json& event) {
          if (event.at("event") != "result") return Stale();
          return Stale{event.at("id").get<std::string>(), event.at("state") == "deleted"};
        }) {}

  void lookup(Reply reply, const std::string& name) override {
    const auto id = Id::parse(name);
    if (!id) return reply.noEntry(kForever);
    auto result = mount_.store().result(*id);
    if (!result) return reply.error(result.error());
    if (!*result) return reply.error(ENOENT);
    touch(*id);
    answerRoot(mount_, std::move(reply), mount_.trees.get(std::move(*result), number()),
               [](const auto&) { return true; });
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
  // However many there are: straight from the store's directory, without a look at each.
  std::vector<ListItem> list() override {
    std::vector<ListItem> items;
    const auto add = [&items](std::string name) {
      const uint64_t ino = Tree::rootIno("results/" + name);
      items.push_back({std::move(name), ino, S_IFDIR});
    };
    // First those that are not there yet, which may be when it is read.
    std::vector<std::string> sealed = mount_.store().sealedResults();
    for (const std::string& name : sealed) add(name);
    const std::string path = mount_.store().resultDir();
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) return items;
    std::ignore = DirectoryStream(std::move(fd)).read(0, [&](const DirectoryStream::Item& item) {
      std::string name = item.name;
      if (!Name::valid(name) || (item.type != DT_DIR && item.type != DT_UNKNOWN)) return true;
      if (!std::binary_search(sealed.begin(), sealed.end(), name)) add(std::move(name));
      return true;
    });
    return items;
  }
  int refusal() const override { return EROFS; }

 private:
  // Opening its files is use as well, and seen by the store.
  void touch(const Id& id) {
    constexpr std::chrono::seconds kEvery{10};
    constexpr size_t kTouched = 4096;
    const auto now = std::chrono::steady_clock::now();
    {
      const std::lock_guard lock(mutex_);
      if (touched_.size() > kTouched) touched_.clear();
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
