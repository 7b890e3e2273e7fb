// caches/, leases/ and builds/.

#include <nlohmann/json.hpp>

#include "fs/own_nodes.h"
#include "fs/tree_node.h"

namespace kilnfs {
namespace {

class CacheLink : public OwnNode {
 public:
  CacheLink(Mount& mount, CacheName name) : mount_(mount), name_(std::move(name)) {}

  struct stat attributes() const override {
    return mount_.ownAttributes(number(), S_IFLNK | 0777);
  }

  // Each process gets its own answer, so the kernel must not keep it.
  void readlink(Reply reply) override {
    const Requester who = reply.requester();
    mount_.later(std::move(reply), [&mount = mount_, name = name_, who](Reply held) {
      const auto lease = mount.leases().follow(name, who);
      if (!lease) {
        mount.control().recordError(who, "follow caches/" + name.str(), lease.error());
        return held.error(lease.error());
      }
      held.link("../leases/" + *lease);
    });
  }

 private:
  Mount& mount_;
  const CacheName name_;
};

class Caches : public OwnDirectory {
 public:
  explicit Caches(Mount& mount) : OwnDirectory(mount, 0755) {}

  // Any name can be followed: a cache that does not exist yet is made by that.
  void lookup(Reply reply, const std::string& name) override {
    const auto cache = CacheName::parse(name);
    if (!cache) return reply.noEntry(kForever);
    answer(std::move(reply), linkOf(*cache));
  }

  // Not EXDEV: mv would copy the link and then remove it, and with it the cache.
  void rename(Reply reply, const std::string&, Node&, const std::string&, unsigned) override {
    reply.error(refusal());
  }

  void unlink(Reply reply, const std::string& name) override {
    const auto cache = CacheName::parse(name);
    if (!cache) return reply.error(ENOENT);
    mount_.later(std::move(reply), [&mount = mount_, cache = *cache](Reply held) {
      mount.leases().settle(cache);
      const auto done = mount.store().deleteCache(cache, false);
      mount.answerVerb(std::move(held), "rm caches/" + cache.str(), done);
    });
  }

 protected:
  std::vector<ListItem> list() override {
    std::vector<ListItem> items;
    for (const std::string& name : mount_.leases().cacheNames()) {
      if (const auto cache = CacheName::parse(name)) {
        items.push_back({name, linkOf(*cache)->number(), S_IFLNK});
      }
    }
    return items;
  }

 private:
  std::shared_ptr<CacheLink> linkOf(const CacheName& name) {
    return links_.get(name, [&] { return std::make_shared<CacheLink>(mount_, name); });
  }

  WeakIndex<CacheName, CacheLink> links_;
};

std::string endedLease(const nlohmann::json& event) {
  const bool ended = event.at("event") == "lease" && event.at("state") != "leased";
  return ended ? event.at("lease").get<std::string>() : std::string();
}

class LeasesDirectory : public EventfulDirectory {
 public:
  // Whoever holds a lease may release it, so all may write here; who may do what is Leases' to say.
  explicit LeasesDirectory(Mount& mount)
      : EventfulDirectory(mount, 0777, [&mount](const nlohmann::json& event) {
          const std::string name = endedLease(event);
          if (!name.empty()) mount.leaseNames.ended("leases/" + name);
          return Stale{name};
        }) {}

  void lookup(Reply reply, const std::string& name) override {
    if (!Name::valid(name)) return reply.noEntry(kForever);
    const uid_t uid = reply.uid();
    // A lease in use is found at once; the first use copies, and takes a worker.
    if (const auto workspace = known(name, uid)) {
      return answer(std::move(reply), name, workspace);
    }
    auto self = std::static_pointer_cast<LeasesDirectory>(shared_from_this());
    mount_.later(std::move(reply), [self, name, uid](Reply held) {
      auto workspace = self->mount_.leases().workspace(name, uid);
      if (!workspace) return held.error(workspace.error());
      self->know(name, *workspace);
      self->answer(std::move(held), name, *workspace);
    });
  }

  void rmdir(Reply reply, const std::string& name) override {
    if (!Name::valid(name)) return reply.error(ENOENT);
    const uid_t uid = reply.uid();
    mount_.later(std::move(reply), [&mount = mount_, name, uid](Reply held) {
      const auto released = mount.leases().release(name, uid, false);
      mount.answerVerb(std::move(held), "rmdir leases/" + name,
                       released ? Status() : Status(Failure(released.error())));
    });
  }

 protected:
  std::vector<ListItem> list() override {
    std::vector<ListItem> items;
    for (const LeaseInfo& lease : mount_.leases().list()) {
      uint64_t ino = std::hash<std::string>()(lease.lease) | 1;
      if (const auto workspace = known(lease.lease, 0)) {
        const auto root = mount_.trees.get(workspace, number())->root();
        if (root) ino = root->attributes.st_ino;
      }
      items.push_back({lease.lease, ino, S_IFDIR});
    }
    return items;
  }

 private:
  struct Known {
    std::weak_ptr<Workspace> workspace;
    uid_t uid = 0;
  };

  void answer(Reply reply, const std::string& name, const std::shared_ptr<Workspace>& workspace) {
    std::optional<uid_t> holder;
    {
      const std::lock_guard lock(mutex_);
      const auto it = known_.find(name);
      if (it != known_.end()) holder = it->second.uid;
    }
    const auto tree = mount_.trees.get(workspace, number());
    answerRoot(mount_, std::move(reply), tree, [&](const struct stat& root) {
      return holder && mount_.staleNames.canExpire() &&
             mount_.leaseNames.keep(tree->key(), *holder, root);
    });
  }

  // Only while it is not frozen: then Leases must say what has become of it.
  std::shared_ptr<Workspace> known(const std::string& name, uid_t uid) {
    const std::lock_guard lock(mutex_);
    const auto it = known_.find(name);
    if (it == known_.end() || (uid != 0 && uid != it->second.uid)) return nullptr;
    auto workspace = it->second.workspace.lock();
    return workspace && !workspace->frozen() ? workspace : nullptr;
  }

  void know(const std::string& name, const std::shared_ptr<Workspace>& workspace) {
    const auto info = mount_.leases().find(name);
    if (!info) return;
    const std::lock_guard lock(mutex_);
    std::erase_if(known_, [](const auto& item) { return item.second.workspace.expired(); });
    known_[name] = {workspace, info->uid};
  }

  std::mutex mutex_;
  std::unordered_map<std::string, Known> known_;  // guarded by mutex_
};

std::string endedBuild(const nlohmann::json& event) {
  if (event.at("event") != "build") return {};
  const auto& state = event.at("state");
  const bool underway = state == "queued" || state == "running";
  return underway ? std::string() : event.at("id").get<std::string>();
}

class BuildsDirectory : public EventfulDirectory {
 public:
  explicit BuildsDirectory(Mount& mount)
      : EventfulDirectory(mount, 0777, [](const auto& e) { return Stale{endedBuild(e)}; }) {}

  void lookup(Reply reply, const std::string& name) override {
    const auto id = Id::parse(name);
    if (!id) return reply.noEntry(kForever);
    // The name of a first attempt is not kept: the second would begin in a tree that is gone. That
    // it be forgotten in between can't be waited for, as whoever waits for the build may be in the
    // way.
    const bool kept = !mount_.builds().mayBeRetried(*id);
    auto workspace = mount_.builds().workspace(*id);
    if (!workspace) return reply.error(ENOENT);
    answerRoot(mount_, std::move(reply), mount_.trees.get(std::move(workspace), number()),
               [&](const auto&) { return kept; });
  }

  void rmdir(Reply reply, const std::string& name) override {
    const auto id = Id::parse(name);
    if (!id) return reply.error(ENOENT);
    const Requester who = reply.requester();
    mount_.later(std::move(reply), [&mount = mount_, id = *id, who](Reply held) {
      const auto done = mount.builds().cancel(id, who);
      mount.answerVerb(std::move(held), "rmdir builds/" + id.str(), done);
    });
  }

 protected:
  std::vector<ListItem> list() override {
    std::vector<ListItem> items;
    for (const BuildStatus& build : mount_.builds().list()) {
      if (build.state != BuildState::running) continue;
      auto workspace = mount_.builds().workspace(build.id);
      if (!workspace) continue;
      const auto root = mount_.trees.get(std::move(workspace), number())->root();
      if (root) items.push_back({build.id.str(), root->attributes.st_ino, S_IFDIR});
    }
    return items;
  }
};

}  // namespace

std::shared_ptr<OwnDirectory> makeCaches(Mount& mount) {
  return std::make_shared<Caches>(mount);
}
std::shared_ptr<OwnDirectory> makeLeases(Mount& mount) {
  return std::make_shared<LeasesDirectory>(mount);
}
std::shared_ptr<OwnDirectory> makeBuilds(Mount& mount) {
  return std::make_shared<BuildsDirectory>(mount);
}

}  // namespace kilnfs
