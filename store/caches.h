// The caches of a store and the generation rule. See store.h for the contract.
//
// A lease is a workspace over the current snapshot. Publishing costs what was changed: the
// workspace's own directories become the new snapshot, and for its stubs the old snapshot's
// directories change places with them (snapshot.h says how leases that lie over the old one go on).
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "store/core.h"

namespace kilnfs {

class Caches {
 public:
  explicit Caches(Core& core);

  Expected<CacheLease> lease(User user, const CacheName& name, std::optional<uint64_t> number);
  uint64_t nextLease() { return next_++; }
  Expected<Release> release(CacheLease& lease, bool discard, const std::string& who);
  Status remove(const CacheName& name, bool force);
  Expected<std::vector<CacheInfo>> list();
  bool has(const CacheName& name) const;

 private:
  struct Cache {
    std::mutex mutex;                     // held while the snapshot is copied, swapped or deleted
    std::atomic<uint64_t> generation{0};  // written under mutex
    std::string publisher;                // guarded by mutex
    std::atomic<int> leases{0};           // written under mutex
    // Guarded by mutex:
    std::shared_ptr<Snapshot> current;  // null: not leased yet
    int onCurrent = 0;                  // leases that lie over it
    /// Superseded, but leases lie over it still, or over an older one. In cache-tmp/.
    struct Old {
      std::shared_ptr<Snapshot> snapshot;
      std::string name;
      int leases = 0;
    };
    std::map<uint64_t, Old> old;  // by generation
  };

  Expected<std::shared_ptr<Cache>> get(const CacheName& name);
  Status record(const CacheName& name, const Cache& cache);
  Expected<std::shared_ptr<Workspace>> open(Cache& cache, const CacheLease& lease,
                                            const std::string& tmp, User user);
  Status publish(Cache& cache, const CacheLease& lease);
  Status publishPlainly(Cache& cache, const CacheLease& lease);
  void discardTree(const CacheLease& lease);
  /// The lease does not lie over its snapshot any more.
  void leave(Cache& cache, const CacheLease& lease);
  /// The current snapshot, which is at `name` in cache-tmp/ now, is superseded.
  void retire(Cache& cache, const std::string& name);

  Core& core_;
  std::mutex mutex_;  // taken before a cache's own; no I/O under it but a row
  std::map<CacheName, std::shared_ptr<Cache>> caches_;  // guarded by mutex_
  std::atomic<uint64_t> next_{1};
};

}  // namespace kilnfs
