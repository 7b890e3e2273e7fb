// What would survive a crash of the machine.
//
// A commit is a rename: after kill -9 of the daemon it is there, but after the machine's crash its
// files may be empty or half there. Commits are not slowed for that. A thread syncs the store's
// file system some seconds after one, then marks what was committed by then as synced; after a
// crash of the machine (another boot, and no clean stop before it) what has no mark is dropped.
//
// A mark is an empty file, `state/synced/<kind>.<name>`, not a row: file systems keep the order of
// renames and unlinks, so taking the mark away before a tree is changed needs no waiting for the
// disk, which a database transaction would; and marks survive the loss of the database.
//
//   state/synced/result.<id>, cache.<name>   the tree of that name is known to be on disk
//   state/synced/session                     "<boot id> running", or "clean", or "lost": a sync
//   failed
//
// Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "store/layout.h"

namespace kilnfs {

enum class TreeKind { result, cache };

class Durability {
 public:
  /// A sync begins at most this long after the commit.
  static constexpr std::chrono::milliseconds kEvery{5000};

  /// `layout` outlives it.
  explicit Durability(const Layout& layout, std::chrono::milliseconds every = kEvery)
      : layout_(layout), every_(every) {}
  /// A clean stop: syncs, and says so on disk. Blocks for as long as that takes.
  ~Durability();
  Durability(const Durability&) = delete;
  Durability& operator=(const Durability&) = delete;

  // -- the start, in this order, by one thread

  /// Reads what the last session left.
  Status open();
  /// Whether the machine has crashed while a daemon had the store.
  bool machineCrashed() const { return crashed_; }
  /// Whether a tree is known to be on disk.
  Expected<bool> isMarked(TreeKind kind, const std::string& name) const;
  /// The same; not if that can't be told.
  bool marked(TreeKind kind, const std::string& name) const {
    return isMarked(kind, name).value_or(false);
  }
  /// From here on the session counts. What is there without a mark is synced first (blocks).
  /// `sealed`: results that are elsewhere than in result/ (materializer.h).
  Status begin(const std::set<std::string>& sealed = {});

  // -- commits

  /// The tree of that name is about to be replaced, deleted, or made: before the first change.
  /// After an error nothing must be changed.
  [[nodiscard]] Status changing(TreeKind kind, const std::string& name);
  /// The tree of that name is complete, and will be synced. Never blocks for the disk.
  void committed(TreeKind kind, const std::string& name);

  /// Syncs all that is committed, now. Blocks.
  Status sync();
  /// The same for all that was done so far, committed or not. EIO: it may not be on disk, nor may
  /// what comes later.
  Status flush();

 private:
  using Tree = std::pair<TreeKind, std::string>;

  const Area& areaOf(TreeKind kind) const;
  Status openDirectory();
  Status readSession();
  Status writeSession(const char* state);
  Expected<std::vector<Tree>> unmarked(const std::set<std::string>& sealed) const;
  Status dropStaleMarks(const std::set<std::string>& sealed);
  Status mark(const Tree& tree) const;
  Status syncLocked(std::unique_lock<std::mutex>& lock, bool evenIfNothing = false);
  void threadMain();

  const Layout& layout_;
  const std::chrono::milliseconds every_;
  std::string boot_;  // this one set in open(), as the next two
  bool crashed_ = false;
  Area marks_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::set<Tree> pending_;   // committed, no sync since; guarded by mutex_, as what follows
  std::set<Tree> inFlight_;  // a sync that covers them is under way
  bool syncing_ = false;
  bool lost_ = false;  // a sync has failed: nothing counts as synced any more
  bool stopping_ = false;
  bool began_ = false;
  std::thread thread_;
};

}  // namespace kilnfs
