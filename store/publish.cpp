#include "store/publish.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <cstdio>

#include "store/base/fault.h"

namespace kilnfs {
namespace {

/// An entry by the directory it is in.
struct Place {
  UniqueFd parent;
  std::string name;
};

Expected<Place> placeOf(const TreeRoot& root, const std::string& path) {
  const size_t slash = path.rfind('/');
  // Not Snapshot::open: that waits for the very exchange that this is for.
  auto parent = root.TreeRoot::open(slash == std::string::npos ? "" : path.substr(0, slash),
                                    O_PATH | O_DIRECTORY);
  if (!parent) return Failure(parent.error());
  return Place{std::move(*parent), slash == std::string::npos ? path : path.substr(slash + 1)};
}

/// The inode number of what has that name; 0: nothing. An error is not nothing: half of a publish
/// would be taken for the whole.
Expected<uint64_t> inodeNumber(int dirFd, const std::string& name) {
  struct stat st = {};
  if (::fstatat(dirFd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) return st.st_ino;
  if (errno == ENOENT) return 0;
  return failErrno("look at " + inQuotes(name));
}

/// Lets two directories change places. Those that they are in keep their times: nobody changed
/// them, and the old tree's may be looked at for long.
Status exchange(const TreeRoot& current, const TreeRoot& sealed, const GiftRow& row) {
  const auto old = placeOf(current, row.from);
  if (!old) return fail(old.error().code, "find " + inQuotes(row.from));
  const auto fresh = placeOf(sealed, row.to);
  if (!fresh) return fail(fresh.error().code, "find " + inQuotes(row.to));
  const int parents[] = {old->parent.get(), fresh->parent.get()};
  struct stat before[2] = {};
  for (int i = 0; i < 2; ++i) {
    if (::fstat(parents[i], &before[i]) != 0) return failErrno("stat");
  }
  const auto move = [&] {
    return moveEntry(parents[0], old->name, parents[1], fresh->name, RENAME_EXCHANGE);
  };
  bool moved = move();
  if (!moved && errno == EACCES) {
    // A cache may have directories that its own user may not write to.
    const MadeWritable from(parents[0], ".");
    const MadeWritable to(parents[1], ".");
    moved = move();
  }
  if (!moved) {
    return failErrno("exchange " + inQuotes(row.from));
  }
  for (int i = 0; i < 2; ++i) {
    const struct timespec times[2] = {before[i].st_atim, before[i].st_mtim};
    ::utimensat(parents[i], "", times, AT_EMPTY_PATH);
  }
  return {};
}

/// The same, of what is at `path` now.
Expected<uint64_t> numberAt(const TreeRoot& root, const std::string& path) {
  const auto place = placeOf(root, path);
  if (place) return inodeNumber(place->parent.get(), place->name);
  if (place.error().code == ENOENT || place.error().code == ENOTDIR) return 0;
  return Failure(place.error());
}

/// Puts back those of the first `count` that have been exchanged.
void takeBack(const TreeRoot& current, const TreeRoot& sealed, const std::vector<GiftRow>& rows,
              size_t count) {
  for (size_t i = count; i-- > 0;) {
    const auto number = numberAt(sealed, rows[i].to);
    if (number && *number == rows[i].ino) (void)exchange(current, sealed, rows[i]);
  }
}

/// Whether a cache is still as it was before the commit of its publish.
Expected<bool> notCommitted(Core& core, const std::string& name, const GiftRow& commit) {
  const auto number = inodeNumber(core.layout.cache().fd.get(), name);
  if (!number) return Failure(number.error());
  return *number == commit.ino;
}

/// Whether a publish that was recorded is one that can have been under way. Nothing is given up
/// because it can't be looked at: the tree may be half exchanged.
Expected<bool> canBe(Core& core, const std::string& name, const GiftRow& commit) {
  if (!Name::valid(name) || !isEntryName(commit.tmp)) return false;
  auto before = notCommitted(core, name, commit);
  if (!before) return before;
  if (!*before) return true;
  auto latest = hasDirectory(core.layout.cache(), name);
  if (!latest || !*latest) return latest;
  return hasDirectory(core.layout.cacheTmp(), commit.tmp);
}

/// The exchanges of a publish that have not been done, the commit last.
Status finishExchanges(Core& core, const std::string& name, const std::vector<GiftRow>& rows) {
  const Area& area = core.layout.cacheTmp();
  const Area& caches = core.layout.cache();
  const GiftRow& commit = rows.back();
  auto before = notCommitted(core, name, commit);
  if (!before) return Failure(before.error());
  if (!*before) return {};
  spdlog::info("recovery: finishing the publishing of cache {}", name);
  const TreeRoot current(caches.fd.get(), caches.path, name, "");
  const TreeRoot sealed(area.fd.get(), area.path, commit.tmp, "");
  for (const GiftRow& row : rows) {
    if (row.from.empty()) continue;
    const auto number = numberAt(current, row.from);
    if (!number) return Failure(number.error());
    if (*number != row.ino) continue;
    if (auto ok = exchange(current, sealed, row); !ok) return ok;
  }
  return exchangeInStore(area, commit.tmp, nullptr, caches, name, nullptr);
}

}  // namespace

Status exchangeWithGifts(Core& core, const std::string& name, const Successor& successor,
                         Snapshot& current, const std::shared_ptr<Snapshot>& next,
                         const std::vector<Sealed::Stub>& stubs) {
  const std::string& tmp = successor.name;
  const Area& area = core.layout.cacheTmp();
  const Area& caches = core.layout.cache();
  const TreeRoot sealed(area.fd.get(), area.path, tmp, "");
  std::vector<GiftRow> rows;
  rows.reserve(stubs.size() + 1);
  for (const Sealed::Stub& stub : stubs) {
    rows.push_back({tmp, stub.snapshot, stub.path, 0});
    const auto place = placeOf(current, stub.snapshot);
    if (!place) return Failure(place.error());
    const auto number = inodeNumber(place->parent.get(), place->name);
    if (!number) return Failure(number.error());
    rows.back().ino = *number;
  }
  const auto latest = inodeNumber(caches.fd.get(), name);
  if (!latest) return Failure(latest.error());
  rows.push_back({tmp, "", "", *latest});
  if (auto ok = core.database->setGifts(name, rows); !ok) return ok;

  Snapshot::Giving giving(current);
  std::vector<Snapshot::Elsewhere> gifts;
  for (size_t i = 0; i < stubs.size(); ++i) {
    const BackingId id{rows[i].ino, stubs[i].placeholder.dev};
    gifts.push_back({stubs[i].snapshot, stubs[i].placeholder, {next, stubs[i].path}, id});
    giving.announce(gifts.back());
  }
  Status ok;
  size_t done = 0;
  for (; done < stubs.size() && ok; ++done) {
    faultPoint("cache.gift");
    ok = exchange(current, sealed, rows[done]);
  }
  faultPoint("cache.exchange");
  if (ok) ok = exchangeInStore(area, tmp, &successor.workspace, caches, name, &current);
  if (!ok) {
    takeBack(current, sealed, rows, done);
    for (const auto& gift : gifts) giving.withdraw(gift);
    (void)core.database->setGifts(name, {});
    return ok;
  }
  for (auto& gift : gifts) giving.add(std::move(gift));
  return {};
}

Status finishPublishing(Core& core) {
  auto pending = core.database->gifts();
  if (!pending) return Failure(pending.error());
  for (const auto& [name, rows] : *pending) {
    auto possible = canBe(core, name, rows.back());
    if (!possible) return Failure(possible.error());
    if (!*possible) {
      spdlog::error("recovery: nothing can be published as cache {}: forgotten", inQuotes(name));
      if (auto ok = core.database->setGifts(name, {}); !ok) return ok;
      continue;
    }
    if (auto ok = finishExchanges(core, name, rows); !ok) {
      return fail(ok.error().code,
                  fmt::format("finish the publishing of cache {}: {}", name, ok.error().message));
    }
    auto row = core.database->cache(name);
    if (!row) return Failure(row.error());
    CacheRow next = row->value_or(CacheRow{});
    ++next.generation;
    next.publisher = "recovery";
    if (auto ok = core.database->finishGifts(name, next); !ok) return ok;
  }
  return {};
}

}  // namespace kilnfs
