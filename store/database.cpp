#include "store/database.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <ctime>
#include <set>

#include "store/base/fd.h"
#include "store/sqlite_connection.h"

namespace kilnfs {
namespace {

constexpr const char* kRows =
    "SELECT id, parent, CAST(strftime('%s', created) AS INTEGER), "
    "CAST(strftime('%s', used) AS INTEGER), rc, bytes, inodes, kilnfs_pins.id, kilnfs_results.id "
    "FROM builds LEFT JOIN kilnfs_usage USING (id) LEFT JOIN kilnfs_pins USING (id) "
    "LEFT JOIN kilnfs_results USING (id)";

BuildRow rowOf(SQLite::Statement& query) {
  BuildRow row;
  row.id = query.getColumn(0).getString();
  if (!query.getColumn(1).isNull()) row.parent = query.getColumn(1).getString();
  row.created = query.getColumn(2).getInt64();
  row.used = query.getColumn(3).getInt64();
  row.children = query.getColumn(4).getInt64();
  if (!query.getColumn(5).isNull()) {
    row.usage = Usage{static_cast<uint64_t>(query.getColumn(5).getInt64()),
                      static_cast<uint64_t>(query.getColumn(6).getInt64())};
  }
  row.pinned = !query.getColumn(7).isNull();
  row.ours = !query.getColumn(8).isNull();
  return row;
}

/// Of each cycle of rows that are their own base, by way of others, one.
std::vector<std::string> closesCycle(const std::map<std::string, BuildRow>& rows) {
  std::vector<std::string> found;
  std::map<std::string, size_t> seenBy;  // the number of the walk that was there first
  size_t walk = 0;
  for (const auto& [start, first] : rows) {
    ++walk;
    for (auto at = rows.find(start); at != rows.end() && seenBy.emplace(at->first, walk).second;) {
      if (!at->second.parent) break;
      const auto next = rows.find(*at->second.parent);
      const auto seen = seenBy.find(*at->second.parent);
      if (seen != seenBy.end() && seen->second == walk) found.push_back(at->first);
      at = next;
    }
  }
  return found;
}

class SqliteDatabase : public Database, private SqliteConnection {
 public:
  using SqliteConnection::SqliteConnection;

  Status addBuild(const std::string& id, const std::optional<std::string>& parent) override {
    return inTransaction("record " + id, [&] { addRow(id, parent); });
  }

  Status addSealed(const SealedRow& row, const std::optional<std::string>& parent) override {
    return inTransaction("record " + row.id, [&] {
      addRow(row.id, parent);
      const std::string shared(reinterpret_cast<const char*>(row.shared.data()),
                               row.shared.size() * sizeof(uint64_t));
      run("INSERT INTO kilnfs_sealed (id, tmp, shared) VALUES (?, ?, ?)", row.id, row.tmp,
          Blob{shared});
      for (const SealedRow::Stub& stub : row.stubs) {
        run("INSERT INTO kilnfs_stubs (id, path, base, base_path) VALUES (?, ?, ?, ?)", row.id,
            Blob{stub.path}, stub.base, Blob{stub.basePath});
      }
    });
  }

  Status removeSealed(const std::string& id, const std::string& tmp) override {
    return inTransaction("record " + id + " as plain", [&] {
      run("DELETE FROM kilnfs_sealed WHERE id = ? AND tmp = ?", id, tmp);
      run("DELETE FROM kilnfs_stubs WHERE id = ?1 AND NOT EXISTS (SELECT * FROM kilnfs_sealed "
          "WHERE id = ?1)",
          id);
    });
  }

  Expected<std::vector<SealedRow>> sealed() override {
    return guarded("list what is sealed", [&] {
      std::vector<SealedRow> rows;
      // What is no text could not be named to be removed.
      run("DELETE FROM kilnfs_sealed WHERE typeof(id) != 'text' OR typeof(tmp) != 'text'");
      const auto query = use("SELECT id, tmp, shared FROM kilnfs_sealed ORDER BY rowid");
      while (query->executeStep()) {
        SealedRow row;
        row.id = query->getColumn(0).getString();
        row.tmp = query->getColumn(1).getString();
        const std::string shared = query->getColumn(2).getString();
        row.shared.resize(shared.size() / sizeof(uint64_t));
        if (!row.shared.empty()) {
          std::memcpy(row.shared.data(), shared.data(), row.shared.size() * sizeof(uint64_t));
        }
        const auto stubs = use("SELECT path, base, base_path FROM kilnfs_stubs WHERE id = ?");
        stubs->bind(1, row.id);
        while (stubs->executeStep()) {
          row.stubs.push_back({stubs->getColumn(0).getString(), stubs->getColumn(1).getString(),
                               stubs->getColumn(2).getString()});
        }
        rows.push_back(std::move(row));
      }
      return rows;
    });
  }

  Status removeBuild(const std::string& id) override {
    return inTransaction("forget " + id, [&] { removeRow(id); });
  }

  Expected<std::optional<BuildRow>> build(const std::string& id) override {
    return guarded("look up " + id, [&]() -> std::optional<BuildRow> {
      const auto query = use(fmt::format("{} WHERE builds.id = ?", kRows));
      query->bind(1, id);
      if (!query->executeStep()) return std::nullopt;
      return rowOf(*query);
    });
  }

  Expected<std::vector<BuildRow>> builds() override {
    return guarded("list the results", [&] {
      const auto query = use(kRows);
      std::vector<BuildRow> rows;
      while (query->executeStep()) rows.push_back(rowOf(*query));
      return rows;
    });
  }

  Status abandonBuild(const std::string& id) override {
    return inTransaction("forget " + id, [&] {
      run("UPDATE builds SET parent = NULL WHERE parent = ?", id);
      removeRow(id);
    });
  }

  Status setUsage(const std::string& id, const Usage& usage) override {
    return inTransaction("record the size of " + id, [&] {
      // Only of a result that is there: it may have been deleted while it was measured.
      run("INSERT OR REPLACE INTO kilnfs_usage (id, bytes, inodes) SELECT id, ?2, ?3 FROM builds "
          "WHERE id = ?1",
          id, static_cast<int64_t>(usage.bytes), static_cast<int64_t>(usage.inodes));
    });
  }

  Expected<Usage> totalUsage() override {
    return guarded("add up the sizes", [&] {
      const auto query = use("SELECT SUM(bytes), SUM(inodes) FROM kilnfs_usage");
      query->executeStep();
      return Usage{static_cast<uint64_t>(query->getColumn(0).getInt64()),
                   static_cast<uint64_t>(query->getColumn(1).getInt64())};
    });
  }

  Status setPinned(const std::string& id, bool pinned) override {
    return inTransaction((pinned ? "pin " : "unpin ") + id, [&] {
      run(pinned ? "INSERT OR IGNORE INTO kilnfs_pins (id) VALUES (?)"
                 : "DELETE FROM kilnfs_pins WHERE id = ?",
          id);
    });
  }

  Expected<std::vector<std::string>> pins() override {
    return guarded("list the pins", [&] {
      const auto query = use("SELECT id FROM kilnfs_pins ORDER BY id");
      std::vector<std::string> ids;
      while (query->executeStep()) ids.push_back(query->getColumn(0).getString());
      return ids;
    });
  }

  Expected<std::vector<std::string>> children(const std::string& id) override {
    return guarded("list what was built on " + id, [&] {
      const auto query = use("SELECT id FROM builds WHERE parent = ? ORDER BY id");
      query->bind(1, id);
      std::vector<std::string> ids;
      while (query->executeStep()) ids.push_back(query->getColumn(0).getString());
      return ids;
    });
  }

  Status setUsed(const std::map<std::string, int64_t>& times) override {
    return inTransaction("record use", [&] {
      for (const auto& [id, time] : times) {
        run("UPDATE builds SET used = datetime(?, 'unixepoch') WHERE id = ?", time, id);
      }
    });
  }

  Expected<bool> madeByUs(const std::string& id) override {
    return guarded("look up " + id, [&] {
      const auto query = use("SELECT 1 FROM kilnfs_results WHERE id = ?");
      query->bind(1, id);
      return query->executeStep();
    });
  }

  Expected<std::vector<std::string>> reconcile(
      const std::map<std::string, int64_t>& existing) override {
    std::vector<std::string> actions;
    auto ok = inTransaction("reconcile", [&] {
      std::map<std::string, BuildRow> rows;
      const auto query = use(kRows);
      while (query->executeStep()) {
        BuildRow row = rowOf(*query);
        rows.emplace(row.id, std::move(row));
      }
      query->reset();
      for (const auto& [id, row] : rows) {
        if (existing.count(id) != 0) continue;
        run("DELETE FROM builds WHERE id = ?", id);
        run("DELETE FROM kilnfs_results WHERE id = ?", id);
        run("DELETE FROM kilnfs_usage WHERE id = ?", id);
        actions.push_back("forgot " + inQuotes(id) + ": its directory is gone");
      }
      for (const auto& [id, made] : existing) {
        if (rows.count(id) != 0) continue;
        run("INSERT INTO builds (id, created, used, rc, parent) VALUES "
            "(?, datetime(?2, 'unixepoch'), datetime(?2, 'unixepoch'), 0, NULL)",
            id, made);
        actions.push_back("recorded " + inQuotes(id) + ": it had no row");
      }
      const int orphans =
          run("UPDATE builds SET parent = NULL WHERE parent IS NOT NULL AND parent NOT IN "
              "(SELECT id FROM builds)");
      if (orphans > 0) actions.push_back(fmt::format("{} results lost their base", orphans));
      for (const std::string& id : closesCycle(rows)) {
        run("UPDATE builds SET parent = NULL WHERE id = ?", id);
        actions.push_back(inQuotes(id) + " was said to be built on itself: it has no base now");
      }
      const int counts = run(
          "UPDATE builds SET rc = (SELECT COUNT(*) FROM builds AS c WHERE c.parent = builds.id) "
          "WHERE rc != (SELECT COUNT(*) FROM builds AS c WHERE c.parent = builds.id)");
      if (counts > 0)
        actions.push_back(fmt::format("recounted the children of {} results", counts));
    });
    if (!ok) return Failure(ok.error());
    return actions;
  }

  Expected<std::optional<CacheRow>> cache(const std::string& name) override {
    return guarded("look up cache " + name, [&]() -> std::optional<CacheRow> {
      const auto query = use("SELECT generation, publisher FROM kilnfs_caches WHERE name = ?");
      query->bind(1, name);
      if (!query->executeStep()) return std::nullopt;
      return CacheRow{static_cast<uint64_t>(query->getColumn(0).getInt64()),
                      query->getColumn(1).getString()};
    });
  }

  Status setCache(const std::string& name, const CacheRow& row) override {
    return inTransaction("record cache " + name, [&] { putCache(name, row); });
  }

  Status setGifts(const std::string& cache, const std::vector<GiftRow>& gifts) override {
    return inTransaction("record the publishing of " + cache, [&] {
      run("DELETE FROM kilnfs_gifts WHERE cache = ?", cache);
      for (const GiftRow& g : gifts) {
        run("INSERT INTO kilnfs_gifts (cache, tmp, from_path, to_path, ino) VALUES (?, ?, ?, ?, ?)",
            cache, Blob{g.tmp}, Blob{g.from}, Blob{g.to}, static_cast<int64_t>(g.ino));
      }
    });
  }

  Expected<std::map<std::string, std::vector<GiftRow>>> gifts() override {
    return guarded("list what was being published", [&] {
      std::map<std::string, std::vector<GiftRow>> all;
      const auto query =
          use("SELECT cache, tmp, from_path, to_path, ino FROM kilnfs_gifts ORDER BY rowid");
      while (query->executeStep()) {
        all[query->getColumn(0).getString()].push_back(
            {query->getColumn(1).getString(), query->getColumn(2).getString(),
             query->getColumn(3).getString(),
             static_cast<uint64_t>(query->getColumn(4).getInt64())});
      }
      return all;
    });
  }

  Status finishGifts(const std::string& cache, const CacheRow& row) override {
    return inTransaction("record cache " + cache, [&] {
      putCache(cache, row);
      run("DELETE FROM kilnfs_gifts WHERE cache = ?", cache);
    });
  }

  Expected<std::optional<std::string>> meta(const std::string& key) override {
    return guarded("read " + key, [&]() -> std::optional<std::string> {
      const auto query = use("SELECT value FROM kilnfs_meta WHERE key = ?");
      query->bind(1, key);
      if (!query->executeStep()) return std::nullopt;
      return query->getColumn(0).getString();
    });
  }

  Status setMeta(const std::string& key, const std::string& value) override {
    return inTransaction("record " + key, [&] {
      run("INSERT OR REPLACE INTO kilnfs_meta (key, value) VALUES (?, ?)", key, value);
    });
  }

 private:
  void putCache(const std::string& name, const CacheRow& row) {
    run("INSERT OR REPLACE INTO kilnfs_caches (name, generation, publisher, published) VALUES "
        "(?, ?, ?, datetime('now'))",
        name, static_cast<int64_t>(row.generation), row.publisher);
  }

  void addRow(const std::string& id, const std::optional<std::string>& parent) {
    removeRow(id);
    run("INSERT INTO builds (id, created, used, rc, parent) VALUES "
        "(?, datetime('now'), datetime('now'), (SELECT COUNT(*) FROM builds WHERE parent = ?1), "
        "?)",
        id, parent);
    run("INSERT OR REPLACE INTO kilnfs_results (id) VALUES (?)", id);
    if (parent) run("UPDATE builds SET rc = rc + 1 WHERE id = ?", *parent);
  }

  void removeSealedRow(const std::string& id) {
    run("DELETE FROM kilnfs_sealed WHERE id = ?", id);
    run("DELETE FROM kilnfs_stubs WHERE id = ?", id);
  }

  void removeRow(const std::string& id) {
    removeSealedRow(id);
    run("UPDATE builds SET rc = rc - 1 WHERE id = (SELECT parent FROM builds WHERE id = ?)", id);
    run("DELETE FROM builds WHERE id = ?", id);
    run("DELETE FROM kilnfs_results WHERE id = ?", id);
    run("DELETE FROM kilnfs_usage WHERE id = ?", id);
  }
};

/// Reads the database from one end to the other.
Status canBeRead(const std::string& file) {
  for (const char* suffix : {"", "-wal"}) {
    const UniqueFd fd(::open((file + suffix).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid() && errno == ENOENT) continue;
    if (!fd.valid()) return failErrno("open " + file + suffix);
    std::vector<char> buffer(1 << 16);
    ssize_t n;
    while ((n = ::read(fd.get(), buffer.data(), buffer.size())) > 0) {
    }
    if (n < 0) return failErrno("read " + file + suffix);
  }
  return {};
}

}  // namespace

// What is corrupt is made anew, which loses what only it knows. So it is opened twice before, and
// read: SQLite says of a page that can't be read at the moment that it is corrupt, too.
Expected<std::unique_ptr<Database>> Database::open(const std::string& file) {
  for (int tried = 1;; ++tried) {
    try {
      return std::make_unique<SqliteDatabase>(file);
    } catch (const SQLite::Exception& e) {
      const int code = e.getErrorCode();
      if (tried == 3 || (code != SQLITE_CORRUPT && code != SQLITE_NOTADB)) {
        return fail(SqliteConnection::errnoOf(e), fmt::format("open {}: {}", file, e.what()));
      }
      if (auto ok = canBeRead(file); !ok) return Failure(ok.error());
      if (tried == 1) continue;
      const std::string aside = fmt::format("{}.corrupt.{}", file, ::time(nullptr));
      spdlog::error("{} is corrupt ({}): set aside as {} and made anew", file, e.what(), aside);
      if (std::rename(file.c_str(), aside.c_str()) != 0) return failErrno("set aside " + file);
      for (const char* suffix : {"-wal", "-shm"}) std::remove((file + suffix).c_str());
    }
  }
}

}  // namespace kilnfs
