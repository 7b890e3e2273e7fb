// The Builds there is: a table of jobs, and threads that run those that can.
//
// A job is queued until its base is there and a thread is free. It has an interest: who waits for
// it, who queued it for good, the jobs that need it as base. Without any it is cancelled.
//
// Locks: mutex_ guards all jobs and tables. Nothing that blocks is done under it, but for single
// system calls that ask whether a result is there. Interrupts are raised, and events
// posted, after it was released.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>
#include <unordered_map>

#include "store/build/attempt.h"

namespace kilnfs {

class Scheduler : public Builds {
 public:
  Scheduler(Store& store, Leases& leases, Options options);
  ~Scheduler() override;

  Expected<BuildStatus> submit(const BuildRequest& request, const Requester& who,
                               Interrupt& interrupt) override;
  Expected<BuildStatus> run(const BuildRequest& request, const Requester& who,
                            Interrupt& interrupt) override;
  Expected<BuildStatus> wait(const Id& id, Interrupt& interrupt) override;
  Status importTree(const Id& id, const std::string& source, const Requester& who,
                    Interrupt& interrupt) override;
  Status exportTree(const Id& id, const std::string& destination, const Requester& who,
                    Interrupt& interrupt) override;
  Status cancel(const Id& id, const Requester& who) override;
  std::optional<BuildStatus> status(const Id& id) const override;
  std::vector<BuildStatus> list() const override;
  BuildTotals totals() const override;
  bool underWay(const Id& id) const override;
  std::shared_ptr<Workspace> workspace(const Id& id) const override;
  bool mayBeRetried(const Id& id) const override;
  void stop() override;

 private:
  struct Job;
  using JobPtr = std::shared_ptr<Job>;
  using Lock = std::unique_lock<std::mutex>;
  /// What has to be done once mutex_ is released.
  struct Later;
  /// A request with all that had to be found out about it.
  struct Prepared;

  Expected<Prepared> prepare(const BuildRequest& request, const Requester& who,
                             Interrupt& interrupt) const;
  Expected<JobPtr> admit(const Prepared& prepared, std::optional<BuildStatus>& answer);
  Expected<JobPtr> add(const Prepared& prepared);
  Expected<BuildStatus> waitFor(Lock& lock, const JobPtr& job, Interrupt& interrupt, Later& later);
  void cancelJob(const JobPtr& job, Later& later);
  void dropInterest(JobPtr job, Later& later);
  void finish(const JobPtr& job, BuildState state, const std::string& message, Later& later);
  void remember(const BuildStatus& status);
  void announce(const Job& job, nlohmann::json extra = nlohmann::json::object());
  void flushEvents();

  void threadMain();
  void runJob(const JobPtr& job);
  void conclude(const JobPtr& job, const Attempt& attempt, const Status& done, Later& later);
  void show(const JobPtr& job, std::shared_ptr<Workspace> tmpdir);
  void watchSpace();

  Store& store_;
  Leases& leases_;
  const Options options_;
  const Sources sources_;
  Supervisors supervisors_;

  Interrupt stopWatching_;

  // Shared with wakers that may outlive this object.
  const std::shared_ptr<std::mutex> mutex_ = std::make_shared<std::mutex>();
  // Guarded by mutex_:
  std::map<Id, JobPtr> active_;  // queued or running
  std::deque<JobPtr> ready_;     // queued, and their base is there
  std::map<Id, BuildStatus> ended_;
  std::deque<Id> endedOrder_;  // oldest first; ids in ended_
  BuildTotals totals_;
  std::deque<nlohmann::json> outbox_;  // events in the order of what happened
  bool stopping_ = false;
  std::condition_variable watch_;
  std::condition_variable work_;  // ready_ or stopping_ changed
  std::condition_variable idle_;  // a job left active_

  std::mutex postMutex_;  // held while outbox_ is emptied, so that the order stays
  std::mutex joinMutex_;  // held while threads_ are joined: who stops it too waits for that
  std::vector<std::thread> threads_;
};

}  // namespace kilnfs
