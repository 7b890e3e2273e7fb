#include "store/sqlite_connection.h"

#include <sqlite3.h>

#include <cerrno>

namespace kilnfs {
namespace {

// OBuilder creates the first two; text and names as there, so that either may come first.
constexpr const char* kSchema = R"(
CREATE TABLE IF NOT EXISTS builds (
  id       TEXT PRIMARY KEY,
  created  DATETIME NOT NULL,
  used     DATETIME NOT NULL,
  rc       INTEGER NOT NULL,
  parent   TEXT,
  FOREIGN KEY (parent) REFERENCES builds (id) ON DELETE RESTRICT
);
CREATE INDEX IF NOT EXISTS lru ON builds (rc, used);
CREATE INDEX IF NOT EXISTS kilnfs_parent ON builds (parent);
CREATE TABLE IF NOT EXISTS kilnfs_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS kilnfs_results (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS kilnfs_pins (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS kilnfs_usage (
  id     TEXT PRIMARY KEY,
  bytes  INTEGER NOT NULL,
  inodes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS kilnfs_caches (
  name       TEXT PRIMARY KEY,
  generation INTEGER NOT NULL,
  publisher  TEXT NOT NULL,
  published  DATETIME NOT NULL
);
CREATE TABLE IF NOT EXISTS kilnfs_gifts (
  cache     TEXT NOT NULL,
  tmp       BLOB NOT NULL,
  from_path BLOB NOT NULL,
  to_path   BLOB NOT NULL,
  ino       INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS kilnfs_sealed (
  id     TEXT PRIMARY KEY,
  tmp    TEXT NOT NULL,
  shared BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS kilnfs_stubs (
  id        TEXT NOT NULL,
  path      BLOB NOT NULL,
  base      TEXT NOT NULL,
  base_path BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS kilnfs_stubs_id ON kilnfs_stubs (id);
)";
constexpr int64_t kVersion = 1;  // of our own tables
constexpr int kBusyMs = 5000;

}  // namespace

int SqliteConnection::errnoOf(const SQLite::Exception& e) {
  switch (e.getErrorCode()) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return EBUSY;
    case SQLITE_FULL:
      return ENOSPC;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return EACCES;
    default:
      return EIO;
  }
}

SqliteConnection::SqliteConnection(const std::string& file)
    : db_(file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, kBusyMs) {
  db_.exec("PRAGMA journal_mode=WAL");
  db_.exec("PRAGMA synchronous=NORMAL");
  checkWhole();
  db_.exec(kSchema);
  checkVersion();
}

// Opening reads only the first page: damage further on would show in the middle of a build.
void SqliteConnection::checkWhole() {
  const std::string found = db_.execAndGet("PRAGMA quick_check(1)").getString();
  if (found != "ok") throw SQLite::Exception(found, SQLITE_CORRUPT);
}

// What a newer kilnfs means by its tables, nobody knows here.
void SqliteConnection::checkVersion() {
  run("INSERT OR IGNORE INTO kilnfs_meta (key, value) VALUES ('version', ?)", kVersion);
  if (db_.execAndGet("SELECT CAST(value AS INTEGER) FROM kilnfs_meta WHERE key = 'version'")
          .getInt64() > kVersion) {
    throw SQLite::Exception("it was made by a newer version of kilnfs: use that", SQLITE_PERM);
  }
}

}  // namespace kilnfs
