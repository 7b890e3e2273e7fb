// The caches of a store and the generation rule. See store.h for the contract.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "store/core.h"

namespace kilnfs {

class Caches {
 public:
  explicit Caches(Core& core) : core_(core) {}

  Expected<CacheLease> lease(User user, const CacheName& name);
  Expected<Release> release(CacheLease& lease, bool discard, const std::string& who);
  Status remove(const CacheName& name, bool force);
  Expected<std::vector<CacheInfo>> list();
  bool has(const CacheName& name) const;

 private:
  struct Cache {
    std::mutex mutex;  // held while the snapshot is copied, swapped or deleted
    std::atomic<uint64_t> generation{0};  // written under mutex
    std::string publisher;                // guarded by mutex
    std::atomic<int> leases{0};           // written under mutex
  };

  Expected<std::shared_ptr<Cache>> get(const CacheName& name);
  Status record(const CacheName& name, const Cache& cache);
  Status publish(const CacheName& name, const std::string& tmp);
  void discardTree(const CacheLease& lease);

  Core& core_;
  std::mutex mutex_;  // taken before a cache's own; no I/O under it but a row
  std::map<CacheName, std::shared_ptr<Cache>> caches_;  // guarded by mutex_
  uint64_t next_ = 1;                                   // guarded by mutex_
};

}  // namespace kilnfs
