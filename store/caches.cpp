#include "store/caches.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "store/rsync.h"

namespace kilnfs {
namespace {

std::string tmpName(const CacheLease& lease) {
  return fmt::format("{}.{}", lease.number, lease.name.str());
}

}  // namespace

Expected<std::shared_ptr<Caches::Cache>> Caches::get(const CacheName& name) {
  const std::lock_guard lock(mutex_);
  auto& slot = caches_[name];
  if (!slot) {
    auto row = core_.database->cache(name.str());
    if (!row) {
      caches_.erase(name);
      return Failure(row.error());
    }
    slot = std::make_shared<Cache>();
    if (*row) {
      slot->generation = (*row)->generation;
      slot->publisher = (*row)->publisher;
    } else if (has(name)) {
      slot->generation = 1;  // taken over from OBuilder, which keeps no count on disk
    }
  }
  return slot;
}

bool Caches::has(const CacheName& name) const {
  return isDirectory(core_.layout.cache(), name.str());
}

Status Caches::record(const CacheName& name, const Cache& cache) {
  return core_.database->setCache(name.str(), CacheRow{cache.generation, cache.publisher});
}

Expected<CacheLease> Caches::lease(User user, const CacheName& name) {
  auto cache = get(name);
  if (!cache) return Failure(cache.error());
  CacheLease lease{name, 0, 0, nullptr};
  {
    const std::lock_guard lock(mutex_);
    lease.number = next_++;
  }
  const std::lock_guard lock((*cache)->mutex);
  const Area& area = core_.layout.cacheTmp();
  const std::string tmp = tmpName(lease);
  if (!has(name)) {
    if (auto ok = makeOwnedDirectory(core_.layout.cache(), name.str(), user); !ok) {
      return Failure(ok.error());
    }
    core_.events.post({{"event", "cache"}, {"cache", name.str()}, {"state", "created"}});
  }
  lease.generation = (*cache)->generation;
  Status ok = makeOwnedDirectory(area, tmp, user);
  if (ok) {
    CopyTree copy;
    copy.source = core_.layout.cache().path + "/" + name.str();
    copy.destination = area.path + "/" + tmp;
    Interrupt never;
    ok = copyTree(copy, never);
  }
  if (ok) ok = giveTo(area, tmp, user);
  if (!ok) {
    (void)core_.trash.take(area, tmp);
    return Failure(ok.error());
  }
  lease.workspace = std::make_shared<Workspace>(
      area.fd.get(), area.path, tmp, fmt::format("leases/{}.{}", name.str(), lease.number));
  ++(*cache)->leases;
  return lease;
}

void Caches::discardTree(const CacheLease& lease) {
  const Area& area = core_.layout.cacheTmp();
  if (auto ok = core_.trash.take(area, tmpName(lease), lease.workspace.get()); !ok) {
    spdlog::warn("{}", ok.error().message);
  }
}

Expected<Release> Caches::release(CacheLease& lease, bool discard, const std::string& who) {
  auto cache = get(lease.name);
  if (!cache) return Failure(cache.error());
  const std::lock_guard lock((*cache)->mutex);
  if (!lease.workspace->freeze(discard)) {
    return fail(EBUSY, fmt::format("a file is open for writing in the lease on {}: close it first",
                                   lease.name.str()));
  }
  --(*cache)->leases;
  Release result;
  result.generation = (*cache)->generation;
  if (discard || !lease.workspace->changed()) {
    result.outcome = discard ? Release::Outcome::discarded : Release::Outcome::unchanged;
    discardTree(lease);
    return result;
  }
  if (lease.generation != (*cache)->generation) {
    result.outcome = Release::Outcome::discarded;
    result.winner = (*cache)->publisher;
    discardTree(lease);
    return result;
  }
  if (auto ok = publish(lease.name, tmpName(lease)); !ok) {
    discardTree(lease);
    return Failure(ok.error());
  }
  ++(*cache)->generation;
  (*cache)->publisher = who;
  if (auto ok = record(lease.name, **cache); !ok) {
    // The snapshot is in place; only the count is behind, and no lease outlives the daemon to notice.
    spdlog::error("{}", ok.error().message);
  }
  result.outcome = Release::Outcome::published;
  result.generation = (*cache)->generation;
  core_.events.post({{"event", "cache"},
                     {"cache", lease.name.str()},
                     {"state", "published"},
                     {"generation", result.generation},
                     {"by", who}});
  return result;
}

Status Caches::publish(const CacheName& name, const std::string& tmp) {
  const Area& area = core_.layout.cacheTmp();
  const Area& caches = core_.layout.cache();
  std::string ready = tmp;
  const bool replaces = has(name);
  if (core_.mode == Mode::hardlink && replaces) {
    ready = "seal." + tmp;
    if (auto ok = makeOwnedDirectory(area, ready, User{::geteuid(), ::getegid()}); !ok) return ok;
    CopyTree share;
    share.source = area.path + "/" + tmp;
    share.destination = area.path + "/" + ready;
    share.linkTo = caches.path + "/" + name.str();
    Interrupt never;
    if (auto ok = copyTree(share, never); !ok) {
      (void)core_.trash.take(area, ready);
      return ok;
    }
  }
  if (auto ok = renameInStore(area, ready, caches, name.str(), replaces); !ok) {
    if (ready != tmp) (void)core_.trash.take(area, ready);
    return ok;
  }
  // After an exchange the old snapshot has our name; what was shared leaves the lease's own tree.
  if (replaces) (void)core_.trash.take(area, ready);
  if (ready != tmp) (void)core_.trash.take(area, tmp);
  return {};
}

Status Caches::remove(const CacheName& name, bool force) {
  auto cache = get(name);
  if (!cache) return Failure(cache.error());
  const std::lock_guard lock((*cache)->mutex);
  if (!has(name)) return fail(ENOENT, fmt::format("{}: no such cache", name.str()));
  if ((*cache)->leases > 0 && !force) {
    return fail(EBUSY, fmt::format("cache {} is leased: release it first, or use --force",
                                   name.str()));
  }
  // Counting on dooms the leases in flight, as in OBuilder.
  ++(*cache)->generation;
  (*cache)->publisher = "deleted";
  if (auto ok = record(name, **cache); !ok) return ok;
  if (auto ok = core_.trash.take(core_.layout.cache(), name.str()); !ok) return ok;
  core_.events.post({{"event", "cache"}, {"cache", name.str()}, {"state", "deleted"}});
  return {};
}

Expected<std::vector<CacheInfo>> Caches::list() {
  auto names = listNames(core_.layout.cache());
  if (!names) return Failure(names.error());
  std::vector<CacheInfo> list;
  for (const std::string& entry : *names) {
    auto name = CacheName::parse(entry);
    if (!name || !has(*name)) continue;
    auto cache = get(*name);
    if (!cache) return Failure(cache.error());
    // Without its lock, which may be held for as long as a copy takes: a listing may be a bit old.
    list.push_back(CacheInfo{*name, (*cache)->generation, (*cache)->leases});
  }
  return list;
}

}  // namespace kilnfs
