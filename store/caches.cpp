#include "store/caches.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "store/base/fault.h"
#include "store/publish.h"
#include "store/rsync.h"
#include "store/seal.h"

namespace kilnfs {
namespace {

std::string tmpName(const CacheLease& lease) {
  return fmt::format("{}.{}", lease.number, lease.name.str());
}

}  // namespace

// What a former session has left, and recovery could not remove, keeps its name.
Caches::Caches(Core& core) : core_(core) {
  const auto names = listNames(core_.layout.cacheTmp());
  if (!names) return;
  for (const std::string& name : *names) {
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc() && *end == '.') next_ = std::max(next_.load(), number + 1);
  }
}

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

Expected<CacheLease> Caches::lease(User user, const CacheName& name,
                                   std::optional<uint64_t> number) {
  auto cache = get(name);
  if (!cache) return Failure(cache.error());
  CacheLease lease{name, number ? *number : nextLease(), 0, nullptr};
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
  auto workspace = open(**cache, lease, tmp, user);
  if (!workspace) {
    (void)core_.trash.take(area, tmp);
    return Failure(workspace.error());
  }
  lease.workspace = std::move(*workspace);
  ++(*cache)->leases;
  ++(*cache)->onCurrent;
  return lease;
}

Expected<std::shared_ptr<Workspace>> Caches::open(Cache& cache, const CacheLease& lease,
                                                  const std::string& tmp, User user) {
  const Area& area = core_.layout.cacheTmp();
  const Area& caches = core_.layout.cache();
  const std::string key = fmt::format("leases/{}.{}", lease.name.str(), lease.number);
  if (!cache.current) {
    cache.current = std::make_shared<Snapshot>(caches.fd.get(), caches.path, lease.name.str(),
                                               "caches/" + lease.name.str());
  }
  if (auto ok = makeOwnedDirectory(area, tmp, user); !ok) return Failure(ok.error());
  std::shared_ptr<Workspace> workspace;
  if (core_.plainWorkspaces) {
    CopyTree copy;
    copy.source = caches.path + "/" + lease.name.str();
    copy.destination = area.path + "/" + tmp;
    Interrupt never;
    if (auto ok = copyTree(copy, never); !ok) return Failure(ok.error());
    workspace = std::make_shared<Workspace>(area.fd.get(), area.path, tmp, key);
  } else {
    auto opened = openWorkspace(area, tmp, key, cache.current);
    if (!opened) return opened;
    workspace = std::move(*opened);
  }
  if (auto ok = giveTo(area, tmp, user); !ok) return Failure(ok.error());
  return workspace;
}

void Caches::discardTree(const CacheLease& lease) {
  const Area& area = core_.layout.cacheTmp();
  removeSideFiles(*lease.workspace);
  if (auto ok = core_.trash.take(area, tmpName(lease), lease.workspace.get()); !ok) {
    spdlog::warn("{}", ok.error().message);
  }
}

void Caches::leave(Cache& cache, const CacheLease& lease) {
  --cache.leases;
  if (lease.generation == cache.generation) {
    --cache.onCurrent;
    return;
  }
  const auto old = cache.old.find(lease.generation);
  if (old == cache.old.end()) return;
  --old->second.leases;
  // From the oldest on: what an old one gave away is in those that came after it.
  while (!cache.old.empty() && cache.old.begin()->second.leases == 0) {
    const Cache::Old& gone = cache.old.begin()->second;
    if (auto ok = core_.trash.take(core_.layout.cacheTmp(), gone.name, gone.snapshot.get()); !ok) {
      spdlog::warn("{}", ok.error().message);
    }
    cache.old.erase(cache.old.begin());
  }
}

void Caches::retire(Cache& cache, const std::string& name) {
  if (cache.onCurrent > 0 || !cache.old.empty()) {
    cache.old[cache.generation] = {std::move(cache.current), name, cache.onCurrent};
  } else {
    (void)core_.trash.take(core_.layout.cacheTmp(), name, cache.current.get());
  }
  cache.current = nullptr;
  cache.onCurrent = 0;
}

Expected<Release> Caches::release(CacheLease& lease, bool discard, const std::string& who) {
  auto found = get(lease.name);
  if (!found) return Failure(found.error());
  Cache& cache = **found;
  const std::lock_guard lock(cache.mutex);
  if (!lease.workspace->freeze(discard)) {
    return fail(EBUSY, fmt::format("a file is open for writing in the lease on {}: close it first",
                                   lease.name.str()));
  }
  Release result;
  result.generation = cache.generation;
  const bool moved = lease.generation != cache.generation;
  if (discard || moved || !lease.workspace->changed()) {
    result.outcome = Release::Outcome::discarded;
    if (!discard && !lease.workspace->changed()) result.outcome = Release::Outcome::unchanged;
    if (result.outcome == Release::Outcome::discarded && !discard) result.winner = cache.publisher;
    leave(cache, lease);
    discardTree(lease);
    return result;
  }
  auto published = core_.durability.changing(TreeKind::cache, lease.name.str());
  if (published) published = publish(cache, lease);
  core_.durability.committed(TreeKind::cache, lease.name.str());  // the new one, or the old again
  if (!published) {
    leave(cache, lease);
    discardTree(lease);
    return Failure(published.error());
  }
  --cache.leases;
  ++cache.generation;
  cache.publisher = who;
  faultPoint("cache.commit");
  if (auto ok = core_.database->finishGifts(lease.name.str(), {cache.generation, who}); !ok) {
    // The snapshot is in place; only the count is behind, and no lease outlives the daemon to
    // notice.
    spdlog::error("{}", ok.error().message);
  }
  result.outcome = Release::Outcome::published;
  result.generation = cache.generation;
  core_.events.post({{"event", "cache"},
                     {"cache", lease.name.str()},
                     {"state", "published"},
                     {"generation", result.generation},
                     {"by", who}});
  return result;
}

Status Caches::publish(Cache& cache, const CacheLease& lease) {
  const std::string tmp = tmpName(lease);
  const bool replaces = has(lease.name);
  if (core_.plainWorkspaces || !replaces) return publishPlainly(cache, lease);
  auto sealed = seal(*lease.workspace, RootStub::stays);
  if (!sealed) return Failure(sealed.error());
  const Area& caches = core_.layout.cache();
  auto next = std::make_shared<Snapshot>(caches.fd.get(), caches.path, lease.name.str(),
                                         "caches/" + lease.name.str());
  if (sealed->links) next->setLinks(std::move(*sealed->links));
  if (auto ok = exchangeWithGifts(core_, lease.name.str(), {tmp, *lease.workspace}, *cache.current,
                                  next, sealed->stubs);
      !ok) {
    return ok;
  }
  --cache.onCurrent;  // this one
  retire(cache, tmp);
  cache.current = std::move(next);
  return {};
}

// The tree is complete as it is: a plain copy, or nothing was there before.
Status Caches::publishPlainly(Cache& cache, const CacheLease& lease) {
  const Area& area = core_.layout.cacheTmp();
  const Area& caches = core_.layout.cache();
  const std::string tmp = tmpName(lease);
  std::string ready = tmp;
  const bool replaces = has(lease.name);
  if (core_.mode == Mode::hardlink && replaces) {
    ready = "seal." + tmp;
    if (auto ok = makeOwnedDirectory(area, ready, User{::geteuid(), ::getegid()}); !ok) return ok;
    CopyTree share;
    share.source = area.path + "/" + tmp;
    share.destination = area.path + "/" + ready;
    share.linkTo = caches.path + "/" + lease.name.str();
    Interrupt never;
    if (auto ok = copyTree(share, never); !ok) {
      (void)core_.trash.take(area, ready);
      return ok;
    }
  }
  // The workspace is the tree that is moved, unless that is a copy of it.
  TreeRoot* const moved = ready == tmp ? lease.workspace.get() : nullptr;
  const auto ok =
      replaces ? exchangeInStore(area, ready, moved, caches, lease.name.str(), cache.current.get())
               : renameInStore(area, ready, caches, lease.name.str(), moved);
  if (!ok) {
    if (ready != tmp) (void)core_.trash.take(area, ready);
    return ok;
  }
  --cache.onCurrent;  // this one
  // After an exchange the old snapshot has our name.
  if (replaces) retire(cache, ready);
  if (ready != tmp) (void)core_.trash.take(area, tmp);
  return {};
}

Status Caches::remove(const CacheName& name, bool force) {
  auto found = get(name);
  if (!found) return Failure(found.error());
  Cache& cache = **found;
  const std::lock_guard lock(cache.mutex);
  if (!has(name)) return fail(ENOENT, fmt::format("{}: no such cache", name.str()));
  if (cache.leases > 0 && !force) {
    return fail(EBUSY,
                fmt::format("cache {} is leased: release it first, or use --force", name.str()));
  }
  const Area& area = core_.layout.cacheTmp();
  const std::string old = fmt::format("deleted.{}.{}", cache.generation.load(), name.str());
  if (auto ok = core_.durability.changing(TreeKind::cache, name.str()); !ok) return ok;
  if (auto ok = renameInStore(core_.layout.cache(), name.str(), area, old, cache.current.get());
      !ok) {
    return ok;
  }
  retire(cache, old);
  // Counting on dooms the leases in flight, as in OBuilder.
  ++cache.generation;
  cache.publisher = "deleted";
  core_.events.post({{"event", "cache"}, {"cache", name.str()}, {"state", "deleted"}});
  return record(name, cache);
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
