// The scheduler's threads, and what is run on the caller's.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <ctime>

#include "store/build/job.h"
#include "store/build/transfer.h"

namespace kilnfs {

void Scheduler::threadMain() {
  for (;;) {
    JobPtr job;
    {
      Lock lock(*mutex_);
      work_.wait(lock, [this] { return stopping_ || !ready_.empty(); });
      if (ready_.empty()) return;
      job = std::move(ready_.front());
      ready_.pop_front();
      job->status.state = BuildState::running;
      job->status.started = ::time(nullptr);
    }
    runJob(job);
    flushEvents();
  }
}

void Scheduler::runJob(const JobPtr& job) {
  const auto began = std::chrono::steady_clock::now();
  const auto makeRoom = [&] {
    return store_.limits().any() ? store_.makeRoom(*job->stop) : Status();
  };
  Attempt attempt(
      {store_, leases_, sources_, options_, supervisors_, makeRoom, job->asked.idIsHash}, job->id,
      job->asked.request, job->asked.who, job->asked.account, *job->stop,
      [&](std::shared_ptr<Workspace> tmpdir) { show(job, std::move(tmpdir)); });
  Status done = attempt.begin();
  {
    const std::lock_guard lock(*mutex_);
    job->status.logged = done.has_value();
    announce(*job);
  }
  flushEvents();
  if (done) done = attempt.run();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  Later later;
  {
    const std::lock_guard lock(*mutex_);
    totals_.seconds += took.count();
    conclude(job, attempt, done, later);
  }
  later.act();
}

/// Keeps the store's limits while builds use up space.
void Scheduler::watchSpace() {
  constexpr std::chrono::seconds kEvery{2};
  Lock lock(*mutex_);
  bool used = false;  // since the last check
  while (!stopping_) {
    watch_.wait_for(lock, kEvery);
    if (stopping_ || (active_.empty() && !used)) continue;
    used = !active_.empty();
    lock.unlock();
    // That there is no space left is said to the builds that begin, and to those that run by the
    // file system.
    if (auto ok = store_.makeRoom(stopWatching_); !ok) {
      spdlog::debug("{}", ok.error().message);
    }
    lock.lock();
  }
}

/// What the end of an attempt means for its job.
void Scheduler::conclude(const JobPtr& job, const Attempt& attempt, const Status& done,
                         Later& later) {
  BuildStatus& status = job->status;
  const std::optional<Supervised::End>& end = attempt.end();
  status.exit = end ? end->exit : std::nullopt;
  status.signal = end ? end->signal : std::nullopt;
  if (done) {
    status.exit = 0;
    finish(job, BuildState::saved, "", later);
    return;
  }
  // The store failed, not the command: an exit status of 0 would say otherwise.
  if (status.exit == 0) status.exit.reset();
  const std::string& message = done.error().message;
  if (job->cancelled) {
    finish(job, BuildState::cancelled, message, later);
  } else if (end && end->timedOut) {
    finish(job, BuildState::timedOut, message, later);
  } else if (job->asked.request.retry && !job->retried && !stopping_) {
    job->retried = true;
    status.state = BuildState::queued;
    status.exit.reset();
    status.signal.reset();
    status.logged = false;
    status.started = 0;
    announce(*job, {{"retry", true}, {"message", message}});
    ready_.push_back(job);
    work_.notify_one();
  } else {
    finish(job, BuildState::failed, message, later);
  }
}

void Scheduler::show(const JobPtr& job, std::shared_ptr<Workspace> tmpdir) {
  const std::lock_guard lock(*mutex_);
  job->tmpdir = std::move(tmpdir);
}

Status Scheduler::importTree(const Id& id, const std::string& source, const Requester& who,
                             Interrupt& interrupt) {
  auto account = accountFor(who, std::nullopt);
  if (!account) return Failure(account.error());
  BuildRequest request;
  request.id = id;
  auto job = std::make_shared<Job>(Prepared{request, who, *account});
  job->status.uid = account->uid;
  job->status.state = BuildState::running;
  job->status.queued = job->status.started = ::time(nullptr);
  job->detached = true;
  {
    const std::lock_guard lock(*mutex_);
    if (stopping_) return fail(ESHUTDOWN, "the daemon is stopping");
    if (active_.count(id) != 0) return fail(EBUSY, fmt::format("{} is being built", id.str()));
    const auto stored = store_.storesResult(id);
    if (!stored) return Failure(stored.error());
    if (*stored) {
      return fail(EEXIST, fmt::format("{} is stored already: delete it first", id.str()));
    }
    if (ended_.erase(id) != 0) std::erase(endedOrder_, id);
    job->held.push_back(store_.hold(id, "it is being built"));
    active_.emplace(id, job);
    announce(*job, {{"import", true}, {"pid", who.pid}});
  }
  flushEvents();
  interrupt.onRaise([job] { job->stop->raise(); });
  Transfer transfer(store_, options_, supervisors_, who);
  Status done = store_.makeRoom(*job->stop);
  if (done) {
    done = transfer.importTree(
        id, source, *account, *job->stop,
        [&](std::shared_ptr<Workspace> tmpdir) { show(job, std::move(tmpdir)); });
  }
  // What an earlier build says in it is not of this tree.
  if (done) (void)store_.removeLog(id);
  Later later;
  {
    const std::lock_guard lock(*mutex_);
    const bool stopped = !done && done.error().code == EINTR;
    if (stopped && job->cancelled) done = fail(ECANCELED, "the import was cancelled");
    if (done) job->status.exit = 0;
    finish(job,
           done      ? BuildState::saved
           : stopped ? BuildState::cancelled
                     : BuildState::failed,
           done ? "" : done.error().message, later);
  }
  later.act();
  flushEvents();
  return done;
}

Status Scheduler::exportTree(const Id& id, const std::string& destination, const Requester& who,
                             Interrupt& interrupt) {
  auto account = accountFor(who, std::nullopt);
  if (!account) return Failure(account.error());
  return Transfer(store_, options_, supervisors_, who)
      .exportTree(id, destination, *account, interrupt);
}

}  // namespace kilnfs
