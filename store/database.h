// The store's database, state/db/db.sqlite: OBuilder's table `builds`, with the same meaning
// (OBuilder's lib/dao.ml), and our own tables beside it. Thread-safe; each call is one
// transaction, which rolls back unless it succeeds. Calls block for a disk write at most.
//
//   builds(id, created, used, rc, parent)   rc = number of rows whose parent is this one;
//                                           times "YYYY-MM-DD HH:MM:SS" in UTC
//   kilnfs_meta(key, value)                 the store's mode
//   kilnfs_results(id)                      results that kilnfs made (their log is in log/)
//   kilnfs_pins(id)                         results that must stay; by id, so it outlasts a rebuild
//   kilnfs_usage(id, bytes, inodes)         what deleting a result frees, once that was measured
//   kilnfs_caches(name, generation, publisher, published)
//   kilnfs_gifts(cache, ...)                a publish under way: which directories change places
//   kilnfs_sealed(id, tmp, shared)          results that are saved, but not plain yet
//   kilnfs_stubs(id, path, base, base_path) which of their directories are where
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/base/error.h"
#include "store/base/units.h"

namespace kilnfs {

struct BuildRow {
  std::string id;
  std::optional<std::string> parent;
  int64_t created = 0;  // seconds since the epoch
  int64_t used = 0;
  int64_t children = 0;
  std::optional<Usage> usage;
  bool pinned = false;
  bool ours = false;  // made by kilnfs
};

struct CacheRow {
  uint64_t generation = 0;
  std::string publisher;
};

/// Two directories that are to change places while a cache is published, by their inode numbers so
/// that it can be told whether they already have.
struct GiftRow {
  std::string tmp;   // the lease's tree in cache-tmp/
  std::string from;  // in cache/<name>; empty: the trees themselves, which is the commit
  std::string to;    // in the lease's tree
  uint64_t ino = 0;  // of what is at cache/<name>/<from> before
};

/// A result that is saved, but whose tree, in result-tmp/, is not complete without other results.
struct SealedRow {
  struct Stub {
    std::string path;      // in the tree: an empty directory
    std::string base;      // the result that holds what should be there
    std::string basePath;  // where
  };
  std::string id;
  std::string tmp;
  std::vector<Stub> stubs;
  std::vector<uint64_t> shared;  // inode numbers of files that are also another result's
};

class Database {
 public:
  /// Opens or makes it. One that SQLite calls corrupt is set aside beside it and made anew
  /// (logged).
  static Expected<std::unique_ptr<Database>> open(const std::string& file);
  virtual ~Database() = default;

  /// Adds a row for a result that kilnfs makes, and counts it at its parent.
  virtual Status addBuild(const std::string& id, const std::optional<std::string>& parent) = 0;
  /// The same for one that is sealed, with what is needed to make it plain: all or nothing.
  virtual Status addSealed(const SealedRow& row, const std::optional<std::string>& parent) = 0;
  /// Forgets that it was not plain, if it still is that tree: it may have been built anew.
  virtual Status removeSealed(const std::string& id, const std::string& tmp) = 0;
  virtual Expected<std::vector<SealedRow>> sealed() = 0;
  /// Removes the row and what counts it. No row: no error.
  virtual Status removeBuild(const std::string& id) = 0;
  virtual Expected<std::optional<BuildRow>> build(const std::string& id) = 0;
  virtual Expected<std::vector<BuildRow>> builds() = 0;
  virtual Expected<std::vector<std::string>> children(const std::string& id) = 0;
  /// Sets `used` of each id to its time (seconds since the epoch).
  virtual Status setUsed(const std::map<std::string, int64_t>& times) = 0;
  /// Forgets a row whose results stay without it: they have no parent any more.
  virtual Status abandonBuild(const std::string& id) = 0;
  virtual Status setUsage(const std::string& id, const Usage& usage) = 0;
  /// Of all results whose size is known.
  virtual Expected<Usage> totalUsage() = 0;
  virtual Status setPinned(const std::string& id, bool pinned) = 0;
  virtual Expected<std::vector<std::string>> pins() = 0;
  virtual Expected<bool> madeByUs(const std::string& id) = 0;

  /// Makes rows agree with the results that exist (id -> time it was made): adds and removes rows,
  /// drops parents that are gone, recounts. Returns a sentence for each action.
  virtual Expected<std::vector<std::string>> reconcile(
      const std::map<std::string, int64_t>& existing) = 0;

  virtual Expected<std::optional<CacheRow>> cache(const std::string& name) = 0;
  virtual Status setCache(const std::string& name, const CacheRow& row) = 0;

  /// Records a publish before it begins, in order.
  virtual Status setGifts(const std::string& cache, const std::vector<GiftRow>& gifts) = 0;
  virtual Expected<std::map<std::string, std::vector<GiftRow>>> gifts() = 0;
  /// Records the cache and forgets its gifts, in one transaction.
  virtual Status finishGifts(const std::string& cache, const CacheRow& row) = 0;

  virtual Expected<std::optional<std::string>> meta(const std::string& key) = 0;
  virtual Status setMeta(const std::string& key, const std::string& value) = 0;
};

}  // namespace kilnfs
