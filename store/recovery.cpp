#include "store/recovery.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <ctime>
#include <map>
#include <set>

#include "store/publish.h"

namespace kilnfs {
namespace {

/// Of the results that were sealed, those whose trees are there and still needed: by id, their
/// trees' names. Forgets the others.
Expected<std::map<std::string, std::string>> stillSealed(Core& core) {
  auto rows = core.database->sealed();
  if (!rows) return Failure(rows.error());
  std::map<std::string, std::string> found;
  for (const SealedRow& row : *rows) {
    auto synced = core.durability.machineCrashed()
                      ? core.durability.isMarked(TreeKind::result, row.id)
                      : Expected<bool>(true);
    if (!synced) return Failure(synced.error());
    const bool torn = !*synced;
    if (torn) {
      spdlog::warn("recovery: dropping result {}: it was not on disk yet when the machine crashed",
                   inQuotes(row.id));
    }
    const bool proper = Name::valid(row.id) && isEntryName(row.tmp);
    if (!proper) spdlog::error("recovery: no result can be {}: forgotten", inQuotes(row.id));
    // One that can't be looked at is still there.
    if (proper && !torn && !isDirectory(core.layout.result(), row.id) &&
        hasDirectory(core.layout.resultTmp(), row.tmp).value_or(true)) {
      found.emplace(row.id, row.tmp);
    } else if (auto ok = core.database->removeSealed(row.id, row.tmp); !ok) {
      return Failure(ok.error());
    }
  }
  return found;
}

Status clearWorkInProgress(Core& core, const std::map<std::string, std::string>& sealed) {
  std::set<std::string> needed;
  for (const auto& [id, tmp] : sealed) needed.insert(tmp);
  for (const Area* area : {&core.layout.resultTmp(), &core.layout.cacheTmp()}) {
    auto names = listNames(*area);
    if (!names) return Failure(names.error());
    for (const std::string& name : *names) {
      if (area == &core.layout.resultTmp() && needed.count(name) != 0) continue;
      spdlog::info("recovery: removing {}/{}", area->path, inQuotes(name));
      // It is in nobody's way there: nothing new gets its name.
      if (auto ok = core.trash.take(*area, name); !ok) {
        spdlog::warn("recovery: it stays where it is: {}", ok.error().message);
      }
    }
  }
  return {};
}

/// Results that OBuilder made while we were away have no mark, but their row says whose they are:
/// those are kept. Without a row it is ours, and the row was lost in the crash.
Expected<bool> isOurs(Core& core, const std::string& id) {
  auto made = core.database->madeByUs(id);
  if (!made || *made) return made;
  auto row = core.database->build(id);
  if (!row) return Failure(row.error());
  return !*row;
}

/// After a crash of the machine: what may be torn goes.
Status dropUnsynced(Core& core) {
  auto results = listNames(core.layout.result());
  if (!results) return Failure(results.error());
  for (const std::string& id : *results) {
    if (!Name::valid(id)) continue;
    auto marked = core.durability.isMarked(TreeKind::result, id);
    if (!marked) return Failure(marked.error());
    if (*marked) continue;
    auto ours = isOurs(core, id);
    if (!ours) return Failure(ours.error());
    if (!*ours) continue;
    spdlog::warn("recovery: dropping result {}: it was not on disk yet when the machine crashed",
                 id);
    if (auto ok = core.trash.take(core.layout.result(), id); !ok) return ok;
  }
  auto caches = listNames(core.layout.cache());
  if (!caches) return Failure(caches.error());
  for (const std::string& name : *caches) {
    if (!Name::valid(name)) continue;
    auto marked = core.durability.isMarked(TreeKind::cache, name);
    if (!marked) return Failure(marked.error());
    if (*marked) continue;
    spdlog::warn("recovery: dropping cache {}: it was not on disk yet when the machine crashed",
                 name);
    if (auto ok = core.trash.take(core.layout.cache(), name); !ok) return ok;
    auto row = core.database->cache(name);
    if (!row) return Failure(row.error());
    CacheRow next = row->value_or(CacheRow{});
    ++next.generation;
    next.publisher = "recovery";
    if (auto ok = core.database->setCache(name, next); !ok) return ok;
  }
  return {};
}

/// A cache that was being published at the crash has lost its mark before the first exchange, and
/// is dropped; one that has its mark has not been touched. Either way there is nothing to finish.
Status forgetPublishing(Core& core) {
  auto pending = core.database->gifts();
  if (!pending) return Failure(pending.error());
  for (const auto& [name, rows] : *pending) {
    if (auto ok = core.database->setGifts(name, {}); !ok) return ok;
  }
  return {};
}

Status reconcile(Core& core, const std::map<std::string, std::string>& sealed) {
  auto names = listNames(core.layout.result());
  if (!names) return Failure(names.error());
  std::map<std::string, int64_t> existing;
  for (const std::string& name : *names) {
    struct stat st = {};
    if (!Name::valid(name)) continue;
    if (::fstatat(core.layout.result().fd.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      // Its row stays: one that can't be looked at is still there.
      if (errno != ENOENT) existing.emplace(name, ::time(nullptr));
    } else if (S_ISDIR(st.st_mode)) {
      existing.emplace(name, st.st_ctime);
    }
  }
  for (const auto& [id, tmp] : sealed) {
    struct stat st = {};
    ::fstatat(core.layout.resultTmp().fd.get(), tmp.c_str(), &st, AT_SYMLINK_NOFOLLOW);
    existing.emplace(id, st.st_ctime);
  }
  auto actions = core.database->reconcile(existing);
  if (!actions) return Failure(actions.error());
  for (const std::string& action : *actions) spdlog::info("recovery: {}", action);
  return {};
}

}  // namespace

Status recover(Core& core) {
  if (auto ok = core.durability.open(); !ok) return ok;
  const bool crashed = core.durability.machineCrashed();
  if (auto ok = crashed ? forgetPublishing(core) : finishPublishing(core); !ok) return ok;
  auto sealed = stillSealed(core);
  if (!sealed) return Failure(sealed.error());
  if (auto ok = clearWorkInProgress(core, *sealed); !ok) return ok;
  if (auto ok = crashed ? dropUnsynced(core) : Status(); !ok) return ok;
  if (auto ok = reconcile(core, *sealed); !ok) return ok;
  std::set<std::string> ids;
  for (const auto& [id, tmp] : *sealed) ids.insert(id);
  return core.durability.begin(ids);
}

}  // namespace kilnfs
