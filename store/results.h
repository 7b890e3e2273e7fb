// The results of a store: building, reading, deleting. See store.h for the contract.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>

#include "store/core.h"

namespace kilnfs {

class Results {
 public:
  explicit Results(Core& core) : core_(core) {}
  /// Writes what touch() has collected.
  ~Results();

  Status build(const Id& id, const std::optional<Id>& base, User owner, Interrupt& interrupt,
               const Store::BuildFn& fn);
  Status remove(const Id& id, bool recursive);
  Expected<std::shared_ptr<Snapshot>> find(const Id& id);
  bool has(const Id& id) const;
  void touch(const Id& id);
  Expected<ResultInfo> info(const Id& id);
  std::optional<std::string> logFile(const Id& id) const;
  Expected<UniqueFd> createLog(const Id& id);
  Status removeLog(const Id& id);

 private:
  class InProgress;

  Status begin(const Id& id, const std::optional<Id>& base);
  void end(const Id& id, const std::optional<Id>& base);
  Expected<std::shared_ptr<Workspace>> open(const Id& id, const std::optional<Id>& base,
                                            const std::string& tmp, User owner,
                                            Interrupt& interrupt,
                                            std::unique_ptr<Overlay>& overlay);
  Status copyPlainly(const Id& base, const std::string& tmp, Interrupt& interrupt);
  Status sharePlainly(const Id& base, const std::string& tmp, const std::string& ready,
                      Interrupt& interrupt);
  Status seal(const Id& id, const std::optional<Id>& base, Workspace& workspace,
              const std::string& tmp, Interrupt& interrupt);
  void keepLinks(const Id& id, LinkCounts links);
  bool madeByObuilder(const Id& id) const;
  Expected<std::vector<Id>> withChildren(const Id& id, bool recursive);
  void flushTouched();

  Core& core_;
  mutable std::mutex mutex_;
  std::set<std::string> building_;    // guarded by mutex_, as what follows
  std::multiset<std::string> bases_;  // of builds in progress
  std::unordered_map<std::string, std::weak_ptr<Snapshot>> known_;
  std::deque<std::shared_ptr<Snapshot>> recent_;  // kept for their link counts: bases, likely
  std::map<std::string, int64_t> touched_;        // id -> time, not yet in the database
  int64_t flushed_ = 0;                           // when touched_ was written last
  unsigned next_ = 1;
};

}  // namespace kilnfs
