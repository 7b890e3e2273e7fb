// Results that are sealed but not plain: served from result-tmp/, and made plain in the background.
//
// A build is saved in O(what it changed): its own directories are on disk, and for those that it
// did not change there is an empty directory that stands for one of another result (snapshot.h).
// That is recorded in the database, which is the commit. Then a thread makes a complete tree beside
// it, of hard links or copies as the store's mode says, and renames it to result/<id>. The sealed
// tree goes when nobody looks at it any more.
//
// References never chain: what is referred to is a directory on disk. The results that hold it are
// ancestors of this one, and no result is deleted before those that were built on it.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "store/core.h"
#include "store/seal.h"
#include "store/snapshot.h"

namespace kilnfs {

/// Thread-safe. Its snapshots must be gone before the Core is.
class Materializer {
 public:
  /// Called, on a thread of its own, when a result is plain and in its place, unless somebody has
  /// deleted it since; with its root (O_PATH), and its link counts, where known.
  using Placed = std::function<void(const Id&, const Snapshot& sealed, const UniqueFd& root,
                                    std::optional<LinkCounts> links)>;
  Materializer(Core& core, Placed placed);
  /// Makes plain what is left, as far as that goes. What fails is tried again at the next start.
  ~Materializer();
  Materializer(const Materializer&) = delete;
  Materializer& operator=(const Materializer&) = delete;

  struct Tree {
    Id id;
    std::string tmp;  // in result-tmp/
    std::vector<Snapshot::Elsewhere> elsewhere;
    SharedFiles shared;
    std::optional<LinkCounts> links;
    std::optional<Snapshot::Over> over;
  };
  /// Takes a tree that is recorded in the database, and returns the snapshot that it is.
  std::shared_ptr<Snapshot> add(Tree tree);

  /// Those that are not plain yet. One that is in none of these is in result/, if anywhere: ask
  /// here first.
  bool has(const Id& id) const;
  std::shared_ptr<Snapshot> find(const Id& id) const;
  std::vector<std::string> names() const;

  /// Throws it into the trash. ENOENT: it is not here (any more).
  Status remove(const Id& id);

  /// Blocks until all that is here has been tried since it was called; the error is of one that
  /// could not be made plain.
  Status drain();
  size_t pending() const;

 private:
  struct Item;
  using ItemPtr = std::shared_ptr<Item>;

  void threadMain();
  /// Called with mutex_ held.
  bool isHere(const ItemPtr& item) const;
  Status makeOne(const ItemPtr& item, const std::string& name);
  /// `safe`: the result is marked as synced, and so is this tree (store/durability.h).
  Status place(const ItemPtr& item, const std::string& name, bool safe);
  /// That it is sealed.
  void forget(const ItemPtr& item);

  Core& core_;
  const Placed placed_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::map<Id, ItemPtr> items_;  // guarded by mutex_, as what follows
  std::deque<ItemPtr> queue_;
  std::vector<ItemPtr> failed_;
  bool busy_ = false;
  int draining_ = 0;    // how many wait
  bool again_ = false;  // one of them came while a try was under way
  bool stopping_ = false;
  unsigned next_ = 1;
  std::thread thread_;  // last: it uses the others
};

}  // namespace kilnfs
