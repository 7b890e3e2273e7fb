#include "store/build/scheduler.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "store/build/job.h"
#include "store/build/transfer.h"

namespace kilnfs {
namespace {

constexpr size_t kRemembered = 1000;

BuildStatus storedStatus(const Id& id) {
  BuildStatus out{id};
  out.state = BuildState::saved;
  out.cached = true;
  out.exit = 0;
  return out;
}

Failure noSuchBuild(const Id& id) {
  return fail(ENOENT, fmt::format("{}: no such build or result", id.str()));
}

}  // namespace

Scheduler::Scheduler(Store& store, Leases& leases, Options options)
    : store_(store),
      leases_(leases),
      options_(std::move(options)),
      sources_(store, options_.mount),
      supervisors_(options_.supervisor, options_.mount) {
  const unsigned jobs = options_.jobs != 0 ? options_.jobs : std::thread::hardware_concurrency();
  for (unsigned i = 0; i < std::max(jobs, 1U); ++i) {
    threads_.emplace_back([this] { threadMain(); });
  }
  if (store_.limits().any()) threads_.emplace_back([this] { watchSpace(); });
}

Scheduler::~Scheduler() {
  stop();
}

// -- asking

Expected<Scheduler::Prepared> Scheduler::prepare(const BuildRequest& request, const Requester& who,
                                                 Interrupt& interrupt) const {
  auto account = accountFor(who, request.user);
  if (!account) return Failure(account.error());
  if (request.argv.empty()) return fail(EINVAL, "no command");
  Prepared out{request, who, std::move(*account)};
  if (request.id) {
    if (store_.hasResult(*request.id)) return out;  // the sources do not matter any more
    for (const BuildRequest::Copy& copy : request.copies) {
      auto path = Sources::resolve(copy.source, who);
      if (!path) return Failure(path.error());
      auto there = sources_.isDirectory(*path, out.account);
      if (!there) return Failure(there.error());
    }
    return out;
  }
  auto id = sources_.automaticId(request, who, out.account, interrupt);
  if (!id) return Failure(id.error());
  out.request.id = std::move(*id);
  out.idIsHash = true;
  return out;
}

Expected<BuildStatus> Scheduler::submit(const BuildRequest& request, const Requester& who,
                                        Interrupt& interrupt) {
  auto prepared = prepare(request, who, interrupt);
  if (!prepared) return Failure(prepared.error());
  std::optional<BuildStatus> answer;
  {
    const std::lock_guard lock(*mutex_);
    auto job = admit(*prepared, answer);
    if (!job) return Failure(job.error());
    if (*job != nullptr) (*job)->detached = true;
  }
  flushEvents();
  return *answer;
}

Expected<BuildStatus> Scheduler::run(const BuildRequest& request, const Requester& who,
                                     Interrupt& interrupt) {
  auto prepared = prepare(request, who, interrupt);
  if (!prepared) return Failure(prepared.error());
  std::optional<BuildStatus> answer;
  Later later;
  Lock lock(*mutex_);
  auto job = admit(*prepared, answer);
  if (!job) return Failure(job.error());
  if (*job == nullptr) return *answer;
  auto out = waitFor(lock, *job, interrupt, later);
  lock.unlock();
  later.act();
  flushEvents();
  return out;
}

/// The job to wait for, or null and the answer: it is stored.
Expected<Scheduler::JobPtr> Scheduler::admit(const Prepared& prepared,
                                             std::optional<BuildStatus>& answer) {
  const Id& id = *prepared.request.id;
  if (stopping_) return fail(ESHUTDOWN, "the daemon is stopping");
  if (const auto found = active_.find(id); found != active_.end()) {
    answer = found->second->status;
    ++totals_.joined;
    announce(*found->second, {{"joined", true}, {"pid", prepared.who.pid}});
    return found->second;
  }
  // Before the log is begun anew: one that can't be read keeps its own.
  const auto stored = store_.storesResult(id);
  if (!stored) return Failure(stored.error());
  if (*stored) {
    store_.touch(id);
    ++totals_.cached;
    answer = storedStatus(id);
    return JobPtr();
  }
  auto job = add(prepared);
  if (job) answer = (*job)->status;
  return job;
}

Expected<Scheduler::JobPtr> Scheduler::add(const Prepared& prepared) {
  const Id& id = *prepared.request.id;
  const std::optional<Id>& base = prepared.request.base;
  auto job = std::make_shared<Job>(prepared);
  job->status.uid = prepared.account.uid;
  job->status.queued = ::time(nullptr);
  if (base == id) return fail(EINVAL, fmt::format("{} can't be its own base", id.str()));
  job->held.push_back(store_.hold(id, "it is being built"));
  if (base) {
    // Before it is looked for: from then on it stays.
    job->held.push_back(
        store_.hold(*base, fmt::format("{}, which is to be built, has it as base", id.str())));
    if (job->held.back() == nullptr) {
      return fail(ENOENT, fmt::format("base {}: it is being deleted", base->str()));
    }
    if (const auto found = active_.find(*base); found != active_.end()) {
      job->base = found->second;
      found->second->dependents.push_back(job);
    } else {
      const auto there = store_.storesResult(*base);
      if (!there) return fail(there.error().code, "base " + there.error().message);
      if (!*there) {
        return fail(ENOENT, fmt::format("base {}: no such result, and no build of it is queued or "
                                        "running",
                                        base->str()));
      }
    }
  }
  if (ended_.erase(id) != 0) std::erase(endedOrder_, id);
  active_.emplace(id, job);
  announce(*job, {{"pid", prepared.who.pid}});
  if (job->base == nullptr) {
    ready_.push_back(job);
    work_.notify_one();
  }
  return job;
}

// -- waiting and cancelling

Expected<BuildStatus> Scheduler::waitFor(Lock& lock, const JobPtr& job, Interrupt& interrupt,
                                         Later& later) {
  ++job->waiters;
  lock.unlock();
  flushEvents();
  interrupt.onRaise([mutex = mutex_, job] {
    { const std::lock_guard inside(*mutex); }  // a waiter is before its test, or waits
    job->changed.notify_all();
  });
  lock.lock();
  job->changed.wait(lock, [&] { return job->done || interrupt.raised(); });
  --job->waiters;
  if (job->done) return job->status;
  dropInterest(job, later);
  return fail(EINTR, fmt::format("the wait for {} was interrupted", job->id.str()));
}

Expected<BuildStatus> Scheduler::wait(const Id& id, Interrupt& interrupt) {
  Later later;
  Lock lock(*mutex_);
  const auto found = active_.find(id);
  if (found != active_.end()) {
    const JobPtr job = found->second;
    auto out = waitFor(lock, job, interrupt, later);
    lock.unlock();
    later.act();
    flushEvents();
    return out;
  }
  const auto stored = store_.storesResult(id);
  if (!stored) return Failure(stored.error());
  const auto ended = ended_.find(id);
  if (ended != ended_.end() && (ended->second.state != BuildState::saved || *stored)) {
    return ended->second;
  }
  if (*stored) return storedStatus(id);
  return noSuchBuild(id);
}

Status Scheduler::cancel(const Id& id, const Requester& who) {
  Later later;
  {
    const std::lock_guard lock(*mutex_);
    const auto found = active_.find(id);
    if (found == active_.end()) {
      return fail(ENOENT, fmt::format("{} is neither queued nor running", id.str()));
    }
    const JobPtr job = found->second;
    if (who.uid != 0 && who.uid != ::geteuid() && who.uid != job->asked.who.uid &&
        who.uid != job->asked.account.uid) {
      return fail(EACCES, fmt::format("{} belongs to user {}", id.str(), job->asked.who.uid));
    }
    cancelJob(job, later);
  }
  later.act();
  flushEvents();
  return {};
}

void Scheduler::cancelJob(const JobPtr& job, Later& later) {
  if (job->done || job->cancelled) return;
  job->cancelled = true;
  if (job->status.state == BuildState::running) {
    later.raise.push_back(job->stop);
  } else {
    finish(job, BuildState::cancelled, "the build was cancelled", later);
  }
}

/// Cancels `job` if nobody is interested in it any more, and then perhaps its base, and so on.
void Scheduler::dropInterest(JobPtr job, Later& later) {
  while (job != nullptr && !job->done && !job->detached && job->waiters == 0 &&
         job->dependents.empty()) {
    const JobPtr base = job->base;
    cancelJob(job, later);
    job = base;
  }
}

// -- ending

/// Moves jobs from active_ to ended_: `job`, and, if it was not saved, all that need it.
void Scheduler::finish(const JobPtr& job, BuildState state, const std::string& message,
                       Later& later) {
  std::vector<std::pair<JobPtr, std::string>> todo = {{job, message}};
  while (!todo.empty()) {
    const auto [each, why] = std::move(todo.back());
    todo.pop_back();
    if (each->done) continue;
    each->done = true;
    each->status.state = each == job ? state : BuildState::failed;
    each->status.message = why;
    each->status.ended = ::time(nullptr);
    std::erase(ready_, each);
    if (each->base != nullptr) {
      const JobPtr base = std::exchange(each->base, nullptr);
      std::erase(base->dependents, each);
      if (!base->done) dropInterest(base, later);
    }
    for (const JobPtr& dependent : std::exchange(each->dependents, {})) {
      if (each->status.state == BuildState::saved) {
        dependent->base = nullptr;
        ready_.push_back(dependent);
        work_.notify_one();
      } else {
        todo.emplace_back(dependent, fmt::format("its base {} was not built: {}", each->id.str(),
                                                 stateName(each->status.state)));
      }
    }
    active_.erase(each->id);
    each->held.clear();
    remember(each->status);
    announce(*each);
    each->changed.notify_all();
  }
  idle_.notify_all();
}

void Scheduler::remember(const BuildStatus& status) {
  uint64_t* const counters[] = {
      nullptr, nullptr, &totals_.saved, &totals_.failed, &totals_.cancelled, &totals_.timedOut};
  if (uint64_t* counter = counters[static_cast<int>(status.state)]) ++*counter;
  if (ended_.insert_or_assign(status.id, status).second) endedOrder_.push_back(status.id);
  if (endedOrder_.size() <= kRemembered) return;
  ended_.erase(endedOrder_.front());
  endedOrder_.pop_front();
}

void Scheduler::announce(const Job& job, nlohmann::json extra) {
  const BuildStatus& status = job.status;
  extra["event"] = "build";
  extra["id"] = status.id.str();
  extra["state"] = stateName(status.state);
  extra["uid"] = status.uid;
  if (status.exit) extra["exit"] = *status.exit;
  if (status.signal) extra["signal"] = *status.signal;
  if (!status.message.empty()) extra["message"] = status.message;
  outbox_.push_back(std::move(extra));
}

void Scheduler::flushEvents() {
  const std::lock_guard posting(postMutex_);
  std::deque<nlohmann::json> events;
  {
    const std::lock_guard lock(*mutex_);
    events.swap(outbox_);
  }
  for (nlohmann::json& event : events) store_.events().post(std::move(event));
}

void Scheduler::stop() {
  Later later;
  {
    const std::lock_guard lock(*mutex_);
    stopping_ = true;
    const auto jobs = active_;
    for (const auto& [id, job] : jobs) cancelJob(job, later);
    work_.notify_all();
    watch_.notify_all();
  }
  stopWatching_.raise();
  later.act();
  flushEvents();
  {
    const std::lock_guard joining(joinMutex_);
    for (std::thread& thread : std::exchange(threads_, {})) thread.join();
  }
  Lock lock(*mutex_);
  idle_.wait(lock, [this] { return active_.empty(); });
}

// -- looking

std::optional<BuildStatus> Scheduler::status(const Id& id) const {
  const std::lock_guard lock(*mutex_);
  if (const auto found = active_.find(id); found != active_.end()) return found->second->status;
  if (const auto found = ended_.find(id); found != ended_.end()) return found->second;
  return std::nullopt;
}

std::vector<BuildStatus> Scheduler::list() const {
  const std::lock_guard lock(*mutex_);
  std::vector<BuildStatus> out;
  for (const auto& [id, job] : active_) out.push_back(job->status);
  std::stable_sort(out.begin(), out.end(), [](const BuildStatus& a, const BuildStatus& b) {
    const bool aRuns = a.state == BuildState::running;
    const bool bRuns = b.state == BuildState::running;
    return aRuns != bRuns ? aRuns : a.queued < b.queued;
  });
  for (auto id = endedOrder_.rbegin(); id != endedOrder_.rend(); ++id) {
    out.push_back(ended_.at(*id));
  }
  return out;
}

BuildTotals Scheduler::totals() const {
  const std::lock_guard lock(*mutex_);
  return totals_;
}

bool Scheduler::underWay(const Id& id) const {
  const std::lock_guard lock(*mutex_);
  return active_.count(id) != 0;
}

std::shared_ptr<Workspace> Scheduler::workspace(const Id& id) const {
  const std::lock_guard lock(*mutex_);
  const auto found = active_.find(id);
  return found == active_.end() ? nullptr : found->second->tmpdir;
}

bool Scheduler::mayBeRetried(const Id& id) const {
  const std::lock_guard lock(*mutex_);
  const auto found = active_.find(id);
  return found != active_.end() && found->second->asked.request.retry && !found->second->retried;
}

}  // namespace kilnfs
