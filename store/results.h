// The results of a store: building, reading, deleting. See store.h for the contract.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>

#include "store/core.h"
#include "store/materializer.h"

namespace kilnfs {

class Results {
 public:
  explicit Results(Core& core)
      : core_(core),
        materializer_(core, [this](const Id& id, const Snapshot& sealed, const UniqueFd& root,
                                   auto links) { placed(id, sealed, root, std::move(links)); }) {}
  /// Makes plain what is left, and writes what touch() has collected.
  ~Results();
  /// Takes over the results that the last session left sealed. Before anything else.
  Status load();

  Status build(const Id& id, const std::optional<Id>& base, User owner, Interrupt& interrupt,
               const Store::BuildFn& fn);
  Status remove(const Id& id, bool recursive);
  Expected<std::shared_ptr<Snapshot>> find(const Id& id);
  Expected<std::shared_ptr<Snapshot>> basis(const Id& id);
  bool has(const Id& id) const;
  Expected<bool> stores(const Id& id) const;
  void touch(const Id& id);
  Expected<ResultInfo> info(const Id& id);
  std::optional<std::string> logFile(const Id& id) const;
  Expected<UniqueFd> createLog(const Id& id);
  Status removeLog(const Id& id);
  Status setPinned(const Id& id, bool pinned);
  /// remove() of one that may be pruned. EBUSY, ENOTEMPTY: it may not (any more).
  Status removeUnused(const Id& id);
  /// Moves a result to where it is not served, so that it can be built again, and says where that
  /// is. Results built on it stay, without a base. EBUSY: a running build uses it as base.
  Expected<std::string> setAside(const Id& id);
  /// Whether a result that has a row is gone from disk; with `forget` the row is dropped. Fails as
  /// stores() does.
  Expected<bool> isMissing(const Id& id, bool forget);
  /// Who needs the result now; empty: nobody.
  std::string useOf(const Id& id) const;
  Holds& holds() { return holds_; }
  /// Tries again to forget deleted results whose rows the database would not give up.
  void forgetDeleted();
  /// Writes to the database when results were used.
  void flushTouched();
  Materializer& materializer() { return materializer_; }
  const Materializer& materializer() const { return materializer_; }

 private:
  class InProgress;

  Status begin(const Id& id, const std::optional<Id>& base);
  void end(const Id& id, const std::optional<Id>& base);
  Expected<std::shared_ptr<Workspace>> open(const Id& id, const std::optional<Id>& base,
                                            const std::string& tmp, User owner,
                                            Interrupt& interrupt,
                                            std::unique_ptr<Overlay>& overlay);
  /// A tmpdir that lies over nothing.
  Expected<std::shared_ptr<Workspace>> openPlain(const std::string& tmp, const std::string& key,
                                                 User owner, std::unique_ptr<Overlay>& overlay);
  Status copyPlainly(const Id& base, const std::string& tmp, Interrupt& interrupt);
  Status sharePlainly(const Id& base, const std::string& tmp, const std::string& ready,
                      Interrupt& interrupt);
  Status save(const Id& id, const std::optional<Id>& base, Workspace& workspace,
              const std::string& tmp, Interrupt& interrupt);
  Status savePlain(const Id& id, const std::optional<Id>& base, const std::string& tmp,
                   std::optional<LinkCounts> links);
  Status saveSealed(const Id& id, const Id& base, Workspace& workspace, const std::string& tmp);
  Status loadSealed(const SealedRow& row);
  std::string freshName(const Id& id);
  std::shared_ptr<Snapshot> open(const Id& id) const;
  /// What is in result/: there is one object for it at a time.
  std::shared_ptr<Snapshot> plain(const Id& id) const;
  /// Forgets the result's snapshots; gives the one that is in result/, if somebody has it.
  std::shared_ptr<Snapshot> letGo(const Id& id);
  Status discard(const Id& id);
  std::optional<std::string> unreadTree(const Id& id) const;
  Expected<std::shared_ptr<Snapshot>> findLocked(const Id& id);
  void keep(std::shared_ptr<Snapshot> snapshot);
  void placed(const Id& id, const Snapshot& sealed, const UniqueFd& root,
              std::optional<LinkCounts> links);
  bool madeByObuilder(const Id& id) const;
  Expected<std::vector<Id>> withChildren(const Id& id, bool recursive);
  Status removeAll(const std::vector<Id>& order);
  std::string useOfLocked(const Id& id) const;
  Status refuseNeeded(const Id& id) const;
  Expected<std::vector<std::string>> unreadOver(const std::string& base) const;

  Core& core_;
  Holds holds_;
  /// Not mutex_, which is held over deletions: whether a result is stored is asked all the time.
  mutable std::mutex unreadMutex_;
  /// Sealed results that could not be read at the start, and their trees' names. Guarded by
  /// unreadMutex_.
  std::map<std::string, std::string> unread_;
  mutable std::mutex mutex_;
  std::set<std::string> building_;    // guarded by mutex_, as what follows
  std::multiset<std::string> bases_;  // of builds in progress
  std::set<Id> rowsLeft_;             // of what was deleted
  std::unordered_map<std::string, std::weak_ptr<Snapshot>> known_;
  /// Of those in known_ that somebody got to know while they were sealed, as they are now.
  std::unordered_map<std::string, std::weak_ptr<Snapshot>> plain_;
  std::deque<std::shared_ptr<Snapshot>> recent_;  // kept for their link counts: bases, likely
  std::map<std::string, int64_t> touched_;        // id -> time, not yet in the database
  int64_t flushed_ = 0;                           // when touched_ was written last
  unsigned next_ = 1;
  Materializer materializer_;  // last: its snapshots go first
};

}  // namespace kilnfs
