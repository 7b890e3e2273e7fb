#include "store/store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "store/build/digest.h"
#include "store/caches.h"
#include "store/core.h"
#include "store/pruner.h"
#include "store/recovery.h"
#include "store/results.h"
#include "store/spare_room.h"
#include "store/store_lock.h"
#include "store/verifier.h"

namespace kilnfs {
namespace {

class DirectoryStore : public Store {
 public:
  DirectoryStore(std::unique_ptr<Core> core, const PruneLimits& limits)
      : core_(std::move(core)),
        results_(*core_),
        caches_(*core_),
        pruner_(*core_, results_, limits) {}
  Status load() { return results_.load(); }

  const std::string& root() const override { return core_->layout.root(); }
  Mode mode() const override { return core_->mode; }
  const std::string& stateDir() const override { return core_->layout.state().path; }
  Events& events() override { return core_->events; }

  Expected<Space> df() const override { return core_->df(); }

  Status build(const Id& id, const std::optional<Id>& base, User owner, Interrupt& interrupt,
               const BuildFn& fn) override {
    return results_.build(id, base, owner, interrupt, fn);
  }
  Status remove(const Id& id, bool recursive) override { return results_.remove(id, recursive); }
  Expected<std::shared_ptr<Snapshot>> result(const Id& id) override { return results_.find(id); }
  Expected<std::shared_ptr<Snapshot>> basis(const Id& id) override { return results_.basis(id); }
  bool hasResult(const Id& id) const override { return results_.has(id); }
  Expected<bool> storesResult(const Id& id) const override { return results_.stores(id); }
  void touch(const Id& id) override { results_.touch(id); }
  Expected<ResultInfo> info(const Id& id) override { return results_.info(id); }
  std::string resultDir() const override { return core_->layout.result().path; }
  std::string logDir() const override { return core_->layout.log().path; }
  std::optional<std::string> logFile(const Id& id) const override { return results_.logFile(id); }
  Expected<UniqueFd> createLog(const Id& id) override { return results_.createLog(id); }
  Status removeLog(const Id& id) override { return results_.removeLog(id); }

  uint64_t nextLease() override { return caches_.nextLease(); }
  Expected<CacheLease> cache(User user, const CacheName& name,
                             std::optional<uint64_t> number) override {
    return caches_.lease(user, name, number);
  }
  Expected<Release> release(CacheLease& lease, bool discard, const std::string& who) override {
    return caches_.release(lease, discard, who);
  }
  Status deleteCache(const CacheName& name, bool force) override {
    return caches_.remove(name, force);
  }
  Expected<std::vector<CacheInfo>> caches() override { return caches_.list(); }
  bool hasCache(const CacheName& name) override { return caches_.has(name); }

  Status setPinned(const Id& id, bool pinned) override { return results_.setPinned(id, pinned); }
  Expected<std::vector<std::string>> pins() override { return core_->database->pins(); }
  Expected<Usage> usage() override { return core_->database->totalUsage(); }
  Expected<std::vector<Pruned>> prune(const PruneRequest& request, Interrupt& interrupt) override {
    return pruner_.prune(request, interrupt);
  }
  Status makeRoom(Interrupt& interrupt) override { return pruner_.makeRoom(interrupt); }
  Hold hold(const Id& id, std::string why) override {
    return results_.holds().hold(id, std::move(why));
  }
  const PruneLimits& limits() const override { return pruner_.limits(); }
  Expected<std::vector<Verified>> verify(const std::vector<Id>& ids, bool repair,
                                         Interrupt& interrupt) override {
    return Verifier(*core_, results_, repair, interrupt).run(ids);
  }
  Status completeDeletes() override {
    auto plain = results_.materializer().drain();
    auto deleted = core_->trash.drain();
    return plain ? deleted : plain;
  }
  Status completeRecords(Interrupt& interrupt) override {
    return core_->manifests.drain(interrupt);
  }
  size_t pendingRecords() const override { return core_->manifests.pending(); }
  size_t pendingDeletes() const override { return core_->trash.pending(); }
  std::vector<std::string> sealedResults() const override {
    return results_.materializer().names();
  }

 private:
  std::unique_ptr<Core> core_;  // first: the others use it
  Results results_;
  Caches caches_;
  Pruner pruner_;
};

Expected<Mode> settleMode(Database& database, std::optional<Mode> wanted, const std::string& root) {
  auto recorded = database.meta("mode");
  if (!recorded) return Failure(recorded.error());
  if (!*recorded) {
    const Mode mode = wanted.value_or(Mode::copy);
    if (auto ok = database.setMeta("mode", modeName(mode)); !ok) return Failure(ok.error());
    return mode;
  }
  auto mode = parseMode(**recorded);
  if (mode && wanted && *wanted != *mode) {
    return fail(EINVAL, fmt::format("the store {} was made with mode={}: leave the option out",
                                    root, modeName(*mode)));
  }
  return mode;
}

}  // namespace

double Space::freePercent() const {
  const auto percent = [](uint64_t free, uint64_t total) {
    return total == 0 ? 100.0 : 100.0 * static_cast<double>(free) / static_cast<double>(total);
  };
  return std::min(percent(freeBytes, totalBytes), percent(freeInodes, totalInodes));
}

Expected<Mode> parseMode(std::string_view text) {
  if (text == "copy") return Mode::copy;
  // Knowing what changed, we need not guess: the unsafe one is as safe as the other.
  if (text == "hardlink" || text == "hardlink_unsafe") return Mode::hardlink;
  return fail(EINVAL, fmt::format("{} is not a mode: use copy or hardlink", inQuotes(text)));
}

std::string modeName(Mode mode) {
  return mode == Mode::copy ? "copy" : "hardlink";
}

std::string outcomeName(Release::Outcome outcome) {
  switch (outcome) {
    case Release::Outcome::published:
      return "published";
    case Release::Outcome::unchanged:
      return "unchanged";
    case Release::Outcome::discarded:
      break;
  }
  return "discarded";
}

Expected<std::unique_ptr<Store>> Store::create(const std::string& path, Options options) {
  // The library behind it sets itself up at the first use: here, and not in a thread that records
  // results in the background and may have to end meanwhile.
  if (auto ready = Digest().finish(); !ready) return Failure(ready.error());
  auto layout = Layout::open(path, options.plainWorkspaces);
  if (!layout) return Failure(layout.error());
  auto lock = takeLock(*layout, options.mount);
  if (!lock) return Failure(lock.error());
  useSpareRoomIfFull(*layout);
  if (::mkdirat(layout->state().fd.get(), "db", 0755) != 0 && errno != EEXIST) {
    return failErrno("make " + layout->state().path + "/db");
  }
  auto database = Database::open(layout->state().path + "/db/db.sqlite");
  if (!database) return Failure(database.error());
  auto mode = settleMode(**database, options.mode, layout->root());
  if (!mode) return Failure(mode.error());
  keepSpareRoom(*layout);
  auto core = std::make_unique<Core>(std::move(*layout), std::move(*database), *mode, options,
                                     std::move(*lock));
  if (auto ok = recover(*core); !ok) return Failure(ok.error());
  if (auto ok = core->manifests.resume(); !ok) return Failure(ok.error());
  auto store = std::make_unique<DirectoryStore>(std::move(core), options.limits);
  if (auto ok = store->load(); !ok) return Failure(ok.error());
  return store;
}

}  // namespace kilnfs
