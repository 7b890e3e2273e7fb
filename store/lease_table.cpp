#include "store/lease_table.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

namespace kilnfs {
namespace {

// How long a lease that is to end is waited for while something in it is still open: close() does
// not wait for the kernel's RELEASE, which is on its way then, unless somebody really has it open.
constexpr std::chrono::milliseconds kReleaseOnItsWay{500};

bool contains(const std::vector<Job>& jobs, pid_t group) {
  return std::any_of(jobs.begin(), jobs.end(), [&](const Job& j) { return j.group == group; });
}

/// The caller and its ancestors up to the daemon: what started the daemon is not what it serves.
std::vector<ProcessInfo> chainOf(pid_t pid) {
  auto chain = ancestry(pid);
  const auto self = std::find_if(chain.begin(), chain.end(),
                                 [](const ProcessInfo& p) { return p.pid == ::getpid(); });
  chain.erase(self, chain.end());
  return chain;
}

}  // namespace

LeaseTable::Record::Record(CacheName n, uint64_t given)
    : name(std::move(n)), number(given), key(fmt::format("{}.{}", name.str(), number)) {}

LeaseTable::LeaseTable(Store& store, Options options)
    : store_(store), options_(options), reaper_([this] { reaperMain(); }) {}

LeaseTable::~LeaseTable() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  reaper_.join();
  workers_.drain();
  Lock lock(mutex_);
  while (!records_.empty()) {
    const RecordPtr record = records_.begin()->second;
    record->closing = true;
    if (auto done = close(lock, record, record->discards); !done) {
      spdlog::warn("{}: {}", record->key, done.error().message);
      records_.erase(record->key);
    }
  }
}

LeaseTable::RecordPtr LeaseTable::add(const CacheName& name, const Requester& owner, Kind kind,
                                      std::string holder) {
  auto record = std::make_shared<Record>(name, store_.nextLease());
  record->kind = kind;
  record->holder = std::move(holder);
  record->uid = owner.uid;
  record->gid = owner.gid;
  record->since = ::time(nullptr);
  records_.emplace(record->key, record);
  changed_.notify_all();
  return record;
}

LeaseTable::RecordPtr LeaseTable::shared(const CacheName& name,
                                         const std::vector<ProcessInfo>& chain) {
  for (const ProcessInfo& process : chain) {
    for (const auto& [key, record] : records_) {
      if (record->name == name && !record->orphaned &&
          (contains(record->jobs, process.group) || record->process == process.pid)) {
        return record;
      }
    }
  }
  return nullptr;
}

Expected<std::string> LeaseTable::follow(const CacheName& name, const Requester& caller) {
  const auto chain = chainOf(caller.pid);
  if (chain.empty()) {
    return fail(ESRCH, fmt::format("cache {}: the process that follows the link can't be seen from "
                                   "here, so its job is unknown: use lease {} on control",
                                   name.str(), name.str()));
  }
  const Job job = jobOf(chain.front());
  Lock lock(mutex_);
  for (;;) {
    RecordPtr record = shared(name, chain);
    if (record && record->closing) {
      changed_.wait(lock);
      continue;
    }
    if (!record) {
      settle(lock, name);
      record = shared(name, chain);  // settling may have dropped the lock
      if (record) continue;
      record = add(name, caller, Kind::job, fmt::format("job {}", job.group));
      record->interactive = isInteractiveShell(job);
    }
    // A descendant with a group of its own keeps the lease alive too.
    if (!contains(record->jobs, job.group)) record->jobs.push_back(job);
    record->leftAt.reset();
    return record->key;
  }
}

void LeaseTable::settle(const CacheName& name) {
  Lock lock(mutex_);
  settle(lock, name);
}

Expected<LeaseInfo> LeaseTable::forBuild(const CacheName& name, const Requester& owner,
                                         const Id& build) {
  Lock lock(mutex_);
  settle(lock, name);
  return made(lock, add(name, owner, Kind::build, "build " + build.str()));
}

void LeaseTable::bindProcess(const std::string& lease, pid_t supervisor) {
  const Lock lock(mutex_);
  if (const auto at = records_.find(lease); at != records_.end()) at->second->process = supervisor;
}

Expected<LeaseInfo> LeaseTable::forHandle(const CacheName& name, const Requester& owner,
                                          uint64_t handle, bool discard) {
  Lock lock(mutex_);
  settle(lock, name);
  const RecordPtr record = add(name, owner, Kind::handle, fmt::format("handle of {}", owner.pid));
  record->handle = handle;
  record->discards = discard;
  record->process = owner.pid;
  return made(lock, record);
}

Expected<LeaseInfo> LeaseTable::forTag(const CacheName& name, const Requester& owner,
                                       const std::string& tag,
                                       std::optional<std::chrono::seconds> ttl) {
  Lock lock(mutex_);
  settle(lock, name);
  const auto at = std::find_if(records_.begin(), records_.end(), [&](const auto& entry) {
    const Record& r = *entry.second;
    return r.kind == Kind::tag && r.name == name && r.tag == tag && r.uid == owner.uid &&
           !r.closing && !r.orphaned;
  });
  RecordPtr record;
  if (at != records_.end()) {
    record = at->second;
  } else {
    record = add(name, owner, Kind::tag, "tag " + tag);
    record->tag = tag;
  }
  if (ttl) record->expires = Clock::now() + *ttl;
  return made(lock, record);
}

Expected<LeaseInfo> LeaseTable::made(Lock& lock, const RecordPtr& record) {
  if (auto ok = make(lock, record); !ok) {
    // Nobody could name it yet, so nobody will release it.
    if (!record->lease && !record->making) records_.erase(record->key);
    changed_.notify_all();
    return Failure(ok.error());
  }
  return describe(*record);
}

Status LeaseTable::make(Lock& lock, const RecordPtr& record) {
  changed_.wait(lock, [&] { return !record->making; });
  if (record->lease) return {};
  if (record->closing || records_.count(record->key) == 0) {
    return fail(ENOENT, fmt::format("{}: no such lease", record->key));
  }
  record->making = true;
  lock.unlock();
  // The number that it is known by: its tree is told from others by it.
  auto lease = store_.cache(User{record->uid, record->gid}, record->name, record->number);
  if (lease) {
    store_.events().post({{"event", "lease"},
                          {"lease", record->key},
                          {"cache", record->name.str()},
                          {"state", "leased"},
                          {"generation", lease->generation},
                          {"holder", record->holder},
                          {"uid", record->uid}});
  }
  lock.lock();
  record->making = false;
  changed_.notify_all();
  if (!lease) return Failure(lease.error());
  record->lease = std::move(*lease);
  return {};
}

Expected<std::shared_ptr<Workspace>> LeaseTable::workspace(const std::string& lease, uid_t uid) {
  Lock lock(mutex_);
  const auto at = records_.find(lease);
  if (at == records_.end()) return fail(ENOENT, fmt::format("{}: no such lease", inQuotes(lease)));
  const RecordPtr record = at->second;
  if (uid != 0 && uid != record->uid) {
    return fail(EACCES, fmt::format("{} belongs to uid {}", lease, record->uid));
  }
  if (auto ok = make(lock, record); !ok) return Failure(ok.error());
  return record->lease->workspace;
}

bool LeaseTable::quiet(const Record& record) {
  return !record.lease || record.lease->workspace->opens() == 0;
}

bool LeaseTable::interactiveLeft(Record& record) {
  if (!quiet(record) || sessionStandsIn(record.jobs.front().group, "/leases/" + record.key)) {
    record.leftAt.reset();
    return false;
  }
  const auto now = Clock::now();
  if (!record.leftAt) record.leftAt = now;
  return now - *record.leftAt >= options_.linger;
}

bool LeaseTable::holderGone(Record& record) {
  if (record.expires && Clock::now() >= *record.expires) record.orphaned = true;
  if (record.orphaned) return true;
  if (record.kind != Kind::job) return false;
  if (std::none_of(record.jobs.begin(), record.jobs.end(), alive)) return true;
  return record.interactive && interactiveLeft(record);
}

void LeaseTable::settle(Lock& lock, const CacheName& name) {
  const auto deadline = Clock::now() + kReleaseOnItsWay;
  for (;;) {
    RecordPtr waitFor;
    for (const auto& [key, record] : records_) {
      if (record->name != name || record->making) continue;
      if (record->closing || holderGone(*record)) waitFor = record;
      if (waitFor) break;
    }
    if (!waitFor) return;
    if (waitFor->closing) {
      changed_.wait(lock);
    } else if (quiet(*waitFor)) {
      waitFor->closing = true;
      // Busy again: it goes on.
      if (auto done = close(lock, waitFor, waitFor->discards); !done) return;
    } else if (Clock::now() < deadline) {
      changed_.wait_for(lock, std::chrono::milliseconds(1));
    } else {
      return;
    }
  }
}

Expected<Release> LeaseTable::close(Lock& lock, const RecordPtr& record, bool discard) {
  changed_.wait(lock, [&] { return !record->making; });
  if (!record->lease) {
    records_.erase(record->key);
    changed_.notify_all();
    return Release{};
  }
  lock.unlock();
  const std::string who = fmt::format("{} (uid {})", record->holder, record->uid);
  auto done = store_.release(*record->lease, discard, who);
  const bool goesOn = !done && done.error().code == EBUSY;
  if (!goesOn) {
    nlohmann::json event = {
        {"event", "lease"}, {"lease", record->key}, {"cache", record->name.str()}};
    event["state"] = done ? outcomeName(done->outcome) : "failed";
    if (done) event["generation"] = done->generation;
    if (done && !done->winner.empty()) event["winner"] = done->winner;
    if (!done) event["message"] = done.error().message;
    store_.events().post(std::move(event));
  }
  lock.lock();
  record->closing = goesOn ? false : true;
  if (!goesOn) records_.erase(record->key);
  changed_.notify_all();
  return done;
}

Expected<Release> LeaseTable::release(const std::string& lease, uid_t uid, bool discard) {
  const auto deadline = Clock::now() + kReleaseOnItsWay;
  Lock lock(mutex_);
  for (;;) {
    const auto at = records_.find(lease);
    if (at == records_.end()) {
      return fail(ENOENT, fmt::format("{}: no such lease", inQuotes(lease)));
    }
    const RecordPtr record = at->second;
    if (uid != 0 && uid != record->uid) {
      return fail(EACCES, fmt::format("{} belongs to uid {}", lease, record->uid));
    }
    if (!record->closing) {
      record->closing = true;
      auto done = close(lock, record, discard);
      if (done || done.error().code != EBUSY || Clock::now() >= deadline) return done;
      // Most likely it was closed a moment ago.
      changed_.wait_for(lock, std::chrono::milliseconds(1));
    } else {
      changed_.wait(lock);
    }
  }
}

void LeaseTable::closeHandle(uint64_t handle) {
  const Lock lock(mutex_);
  for (const auto& [key, record] : records_) {
    if (record->kind == Kind::handle && record->handle == handle) record->orphaned = true;
  }
  changed_.notify_all();
}

LeaseInfo LeaseTable::describe(const Record& record) const {
  LeaseInfo info;
  info.lease = record.key;
  info.cache = record.name.str();
  info.holder = record.holder;
  info.uid = record.uid;
  info.since = record.since;
  info.used = record.lease.has_value();
  if (info.used) {
    info.generation = record.lease->generation;
    info.opens = record.lease->workspace->opens();
  }
  return info;
}

std::vector<LeaseInfo> LeaseTable::list() const {
  const Lock lock(mutex_);
  std::vector<LeaseInfo> out;
  for (const auto& [key, record] : records_) {
    if (record->lease) out.push_back(describe(*record));
  }
  return out;
}

std::optional<LeaseInfo> LeaseTable::find(const std::string& lease) const {
  const Lock lock(mutex_);
  const auto at = records_.find(lease);
  if (at == records_.end()) return std::nullopt;
  return describe(*at->second);
}

std::vector<std::string> LeaseTable::cacheNames() const {
  std::set<std::string> names;
  if (auto caches = store_.caches()) {
    for (const CacheInfo& cache : *caches) names.insert(cache.name.str());
  }
  const Lock lock(mutex_);
  for (const auto& [key, record] : records_) names.insert(record->name.str());
  return {names.begin(), names.end()};
}

void LeaseTable::reaperMain() {
  Lock lock(mutex_);
  while (!stopping_) {
    if (records_.empty()) {
      changed_.wait(lock);
      continue;
    }
    std::vector<RecordPtr> ended;
    for (const auto& [key, record] : records_) {
      if (!record->closing && !record->making && holderGone(*record) && quiet(*record)) {
        ended.push_back(record);
      }
    }
    for (const RecordPtr& record : ended) {
      record->closing = true;
      workers_.run([this, record] {
        Lock own(mutex_);
        (void)close(own, record, record->discards);  // events say what came of it
      });
    }
    changed_.wait_for(lock, options_.poll, [this] { return stopping_; });
  }
}

}  // namespace kilnfs
