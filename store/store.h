// The store: OBuilder's STORE interface over a directory that any tool can read.
//
//   STORE/result/<id>/   results, visible only when whole      STORE/log/<id>     last log of <id>
//   STORE/result-tmp/    builds in progress, trash             STORE/state/db/db.sqlite
//   STORE/cache/<name>/  latest snapshot of a cache            STORE/cache-tmp/   leases in
//   progress
//
// log/ is for all to read. The others are for the daemon's user: saved files belong to those who
// built them, who must not change them past the mount.
//
// The words follow OBuilder: root, df, build, delete (remove), result, log_file, state_dir, cache,
// delete_cache, complete_deletes. All functions are thread-safe. Those that copy trees block for
// as long as that takes, and say so; the others do a few system calls. Errors are values; after a
// failure nothing that was stored before has changed, and what was half made is removed.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/base/interrupt.h"
#include "store/base/name.h"
#include "store/events.h"
#include "store/holds.h"
#include "store/prune.h"
#include "store/snapshot.h"
#include "store/verify.h"
#include "store/workspace.h"

namespace kilnfs {

/// How snapshots share space; fixed when the store is made.
enum class Mode {
  copy,      // no two snapshots share an inode
  hardlink,  // identical files of a result and its base are one inode ("hardlink_unsafe" too)
};

Expected<Mode> parseMode(std::string_view text);
std::string modeName(Mode mode);

struct Space {
  uint64_t totalBytes = 0;
  uint64_t freeBytes = 0;  // what the daemon's user may still write
  uint64_t totalInodes = 0;
  uint64_t freeInodes = 0;
  /// OBuilder's df: percent of the bytes, or of the inodes where those are scarcer, still free.
  double freePercent() const;
};

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
};

/// What became of a lease.
struct Release {
  enum class Outcome { published, unchanged, discarded };
  Outcome outcome = Outcome::unchanged;
  uint64_t generation = 0;  // the cache's generation afterwards
  std::string winner;       // discarded because the cache moved on: who published that generation
};
std::string outcomeName(Release::Outcome outcome);

/// A writable copy of a cache's latest snapshot. Released once; discarded if it is destroyed first.
struct CacheLease {
  CacheName name;
  uint64_t number = 0;      // unique while this store is open
  uint64_t generation = 0;  // of the snapshot that was copied; a new cache starts at 0
  std::shared_ptr<Workspace> workspace;
};

struct CacheInfo {
  CacheName name;
  uint64_t generation = 0;
  int leases = 0;  // now
};

/// A result's row in OBuilder's table `builds`, times as seconds since the epoch.
struct ResultInfo {
  Id id;
  std::optional<Id> parent;
  int64_t created = 0;
  int64_t used = 0;
  int64_t children = 0;
};

class Store {
 public:
  struct Options {
    std::optional<Mode> mode;  // absent: as the store is, `copy` for a new one
    std::string mount;         // where it will be mounted, for the message to a second daemon
    /// Workspaces are plain copies, made and compared by rsync, for those who use their paths on
    /// disk. Else they are copy on write, and only to be used through `store/tree/` (or the mount).
    bool plainWorkspaces = false;
    /// A build's command is to get its directory past the mount where that can be had: see
    /// Workspace::native. Whoever runs the command must put it in place.
    bool nativeBuilds = false;
    PruneLimits limits = {};  // that hold always: see makeRoom()
  };

  /// Opens the store at `path`, making it (one level) if it does not exist, and takes its lock:
  /// EBUSY if another process has it, ENOTDIR, EACCES, ENOTEMPTY (a directory with other things
  /// in it), EINVAL (another mode than it was made with). Recovers what a crash left: removes
  /// work in progress, makes database and directories agree, and after a crash of the machine drops
  /// what was not on disk yet (durability.h); each action is logged. Blocks: syncs what a session
  /// that did not end cleanly, or another program, has left.
  static Expected<std::unique_ptr<Store>> create(const std::string& path, Options options);
  /// Waits for deletions, and for results to be made plain, in the background. Leases, workspaces
  /// and snapshots must be gone.
  virtual ~Store() = default;

  virtual const std::string& root() const = 0;
  virtual Mode mode() const = 0;
  virtual Expected<Space> df() const = 0;
  /// A directory for the state of whoever uses the store.
  virtual const std::string& stateDir() const = 0;
  virtual Events& events() = 0;

  // -- results

  /// What a build does in its tmpdir. The workspace is live until the function returns.
  using BuildFn = std::function<Status(const std::shared_ptr<Workspace>& tmpdir)>;

  /// Runs `fn` in a tmpdir that is a copy of result `base` (or empty, owned by `owner`); if it
  /// succeeds the tmpdir is saved as `id`, with its row in `builds`. If it fails its error is
  /// returned, nothing is recorded, and a later call tries again. ENOENT: no such base. EEXIST: the
  /// result is there already. EIO: it, or the base, is stored but can't be read, so it stays as it
  /// is. The caller never builds one id twice at the same time (EBUSY). Blocks: runs `fn`, and for
  /// O(what it changed); then the result is there, though its directory in resultDir() follows
  /// later. Neither can the base be deleted meanwhile, nor before its results. With plainWorkspaces
  /// the base is copied, and `interrupt` ends that with EINTR.
  virtual Status build(const Id& id, const std::optional<Id>& base, User owner,
                       Interrupt& interrupt, const BuildFn& fn) = 0;

  /// Deletes a result: ENOENT; ENOTEMPTY if results were built on it (see `recursive`); EBUSY if
  /// it, or one built on it, is pinned, or a build in progress uses it as base. Renames it away;
  /// the files are freed in the background. Its log is deleted with it. One that could not be read
  /// when the store was opened can be deleted, too.
  virtual Status remove(const Id& id, bool recursive) = 0;

  /// The result, or nothing. Repeated calls give the same object while somebody holds it. Fails as
  /// storesResult() does.
  virtual Expected<std::shared_ptr<Snapshot>> result(const Id& id) = 0;  // null: no such result
  /// The same, but once the result was made plain, the plain one: who holds the other goes on with
  /// that.
  virtual Expected<std::shared_ptr<Snapshot>> basis(const Id& id) = 0;
  /// A cheap test for being there: one system call.
  virtual bool hasResult(const Id& id) const = 0;
  /// The same for who would build it anew, or build on it: EIO if it is stored but could not be
  /// read when the store was opened, and another error if that can't be told now.
  virtual Expected<bool> storesResult(const Id& id) const = 0;
  /// Records that the result was used now. May be delayed; never fails.
  virtual void touch(const Id& id) = 0;
  virtual Expected<ResultInfo> info(const Id& id) = 0;
  /// Directories whose listings are the names of results (with sealedResults()) and of logs. Skip
  /// invalid names.
  virtual std::string resultDir() const = 0;
  virtual std::string logDir() const = 0;

  /// The path of the log of the last attempt at `id`: while it is being built, after success, and
  /// after failure. For a result made by OBuilder result/<id>/log. Nothing if there is none.
  virtual std::optional<std::string> logFile(const Id& id) const = 0;
  /// A new, empty log for `id`, open for appending; readers of an earlier one keep that.
  virtual Expected<UniqueFd> createLog(const Id& id) = 0;
  /// ENOENT; EBUSY while `id` is being built. Never deletes a result's own files.
  virtual Status removeLog(const Id& id) = 0;

  /// A pinned result is neither pruned nor deleted. The pin is on the id: it outlasts a repair.
  /// ENOENT: no such result, or no pin to take away. To pin twice is no error.
  virtual Status setPinned(const Id& id, bool pinned) = 0;
  virtual Expected<std::vector<std::string>> pins() = 0;
  /// Of all results, as far as it was measured.
  virtual Expected<Usage> usage() = 0;

  /// Deletes results until the limits are kept, the least recently used first; without limits,
  /// those that the store was opened with. Never one that is pinned, that others were built on,
  /// that is open or held, or that a build uses as its base. One object for each, by id. What is
  /// deleted is freed in the background. EINVAL: no limit at all. Blocks: measures results that
  /// nobody has measured yet. EINTR: those deleted by then are.
  virtual Expected<std::vector<Pruned>> prune(const PruneRequest& request,
                                              Interrupt& interrupt) = 0;
  /// Sees to it that the limits that the store was opened with are kept; to be called before space
  /// is used. Waits until it has been freed. ENOSPC: nothing that may be pruned is left.
  virtual Status makeRoom(Interrupt& interrupt) = 0;
  /// Keeps the result from being pruned, be it there yet or not, as long as somebody has what is
  /// returned. `why` is for people. Null: it is being pruned right now. Does not block.
  virtual Hold hold(const Id& id, std::string why) = 0;
  virtual const PruneLimits& limits() const = 0;

  /// Compares results (without ids: all) with what was recorded when they were saved; one that
  /// has no record gets one. With `repair`, those that differ are moved to state/bad/, where they
  /// are not served, so that they can be built again, and what was built on them is looked at
  /// too; rows of results that are gone from disk are dropped, and what can't be looked at now is
  /// left as it is. ENOENT: no such result. EINTR. Blocks: reads all that is compared.
  virtual Expected<std::vector<Verified>> verify(const std::vector<Id>& ids, bool repair,
                                                 Interrupt& interrupt) = 0;

  // -- caches

  /// A lease on the latest snapshot of `name`: a writable copy, its root directory owned by `user`.
  /// A cache that does not exist is created, empty. `number`, from nextLease(), is part of its
  /// tree's key; without it the next one is taken. Blocks: copies.
  virtual Expected<CacheLease> cache(User user, const CacheName& name,
                                     std::optional<uint64_t> number = std::nullopt) = 0;

  /// A number that no lease of this store has had since it was opened. Does not block.
  virtual uint64_t nextLease() = 0;

  /// Ends a lease. Its workspace becomes the cache's latest snapshot if it was changed (through
  /// `store/tree/`; who writes to its path directly says so by markChanged) and the cache's
  /// generation is still the leased one; else it is discarded. EBUSY, and the lease goes on, while
  /// a file is open for writing in it (unless `discard`). `who` is recorded as the publisher. Any
  /// other error: the lease is over and was discarded.
  virtual Expected<Release> release(CacheLease& lease, bool discard, const std::string& who) = 0;

  /// Deletes a cache. EBUSY while it is leased; with `force` leases in flight are doomed instead:
  /// what they hold is discarded at release. ENOENT: no such cache.
  virtual Status deleteCache(const CacheName& name, bool force) = 0;

  virtual Expected<std::vector<CacheInfo>> caches() = 0;
  virtual bool hasCache(const CacheName& name) = 0;

  // -- housekeeping

  /// Results that are saved but not in resultDir() yet: they are made plain in the background.
  virtual std::vector<std::string> sealedResults() const = 0;
  /// Blocks until all deletions so far are done on disk and all results so far are plain.
  virtual Status completeDeletes() = 0;
  /// Trees that wait for deletion.
  virtual size_t pendingDeletes() const = 0;
  /// Blocks until all results so far are recorded for verify. EINTR.
  virtual Status completeRecords(Interrupt& interrupt) = 0;
  /// Results that wait for being recorded.
  virtual size_t pendingRecords() const = 0;
};

}  // namespace kilnfs
