// The table behind Leases.
//
// A record's life: made (no workspace) -> used (workspace) -> closing -> gone from the table. One
// mutex guards the table and the records. It is dropped while a workspace is copied or published;
// the record is then marked `making` or `closing`, and others wait for `changed_`.
#pragma once

#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "store/base/workers.h"
#include "store/jobs.h"
#include "store/leases.h"

namespace kilnfs {

class LeaseTable : public Leases {
 public:
  LeaseTable(Store& store, Options options);
  ~LeaseTable() override;

  Expected<std::string> follow(const CacheName& name, const Requester& caller) override;
  void settle(const CacheName& name) override;
  Expected<LeaseInfo> forBuild(const CacheName& name, const Requester& owner,
                               const Id& build) override;
  void bindProcess(const std::string& lease, pid_t supervisor) override;
  Expected<LeaseInfo> forHandle(const CacheName& name, const Requester& owner, uint64_t handle,
                                bool discard) override;
  Expected<LeaseInfo> forTag(const CacheName& name, const Requester& owner, const std::string& tag,
                             std::optional<std::chrono::seconds> ttl) override;
  Expected<std::shared_ptr<Workspace>> workspace(const std::string& lease, uid_t uid) override;
  Expected<Release> release(const std::string& lease, uid_t uid, bool discard) override;
  void closeHandle(uint64_t handle) override;
  std::vector<LeaseInfo> list() const override;
  std::optional<LeaseInfo> find(const std::string& lease) const override;
  std::vector<std::string> cacheNames() const override;

 private:
  using Clock = std::chrono::steady_clock;
  enum class Kind { job, handle, tag, build };

  struct Record {
    Record(CacheName n, uint64_t number);

    const CacheName name;
    const uint64_t number;
    const std::string key;  // "npm.3"
    Kind kind = Kind::job;
    std::string holder;  // for people
    uid_t uid = 0;
    gid_t gid = 0;
    int64_t since = 0;
    std::vector<Job> jobs;  // of the holder, and of descendants that joined
    pid_t process = 0;      // handle, build: the process whose descendants share it
    uint64_t handle = 0;
    std::string tag;
    std::optional<Clock::time_point> expires;
    bool discards = false;  // what was changed, if its holder goes without releasing it
    bool orphaned = false;  // its handle was closed, or its time is over
    bool interactive = false;
    std::optional<Clock::time_point> leftAt;  // interactive: when nobody was in it first
    std::optional<CacheLease> lease;          // made at first use
    bool making = false;
    bool closing = false;
  };
  using RecordPtr = std::shared_ptr<Record>;
  using Lock = std::unique_lock<std::mutex>;

  RecordPtr add(const CacheName& name, const Requester& owner, Kind kind, std::string holder);
  Expected<LeaseInfo> made(Lock& lock, const RecordPtr& record);
  Status make(Lock& lock, const RecordPtr& record);
  RecordPtr shared(const CacheName& name, const std::vector<ProcessInfo>& chain);
  void settle(Lock& lock, const CacheName& name);
  bool holderGone(Record& record);
  bool interactiveLeft(Record& record);
  static bool quiet(const Record& record);
  Expected<Release> close(Lock& lock, const RecordPtr& record, bool discard);
  LeaseInfo describe(const Record& record) const;
  void reaperMain();

  Store& store_;
  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;           // a record was made, closed, or left the table
  std::map<std::string, RecordPtr> records_;  // by key; guarded by mutex_, as what follows
  bool stopping_ = false;
  Workers workers_;
  std::thread reaper_;  // last: it uses the others
};

}  // namespace kilnfs
