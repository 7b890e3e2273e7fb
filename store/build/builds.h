// The daemon's builds: queued, joined, run at most `jobs` at a time, and remembered for a while
// after they ended. Thread-safe.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/base/requester.h"
#include "store/leases.h"
#include "store/store.h"

namespace kilnfs {

struct BuildRequest {
  struct Copy {
    std::string source;       // as written: relative to the requester's working directory
    std::string destination;  // below the tmpdir; empty: the tmpdir itself, as rsync SRC/ DST does
  };
  struct Cache {
    CacheName name;
    std::string destination;  // below the tmpdir; empty: the cache's name
  };
  std::optional<Id> id;  // absent: the SHA-256 of everything that determines the result
  std::optional<Id> base;
  std::vector<Copy> copies;
  std::vector<Cache> caches;
  std::vector<std::string> env;  // "K=V"
  std::optional<User> user;      // absent: the requester
  std::optional<std::chrono::milliseconds> timeout;
  bool retry = false;             // when it fails, queue it once more
  std::vector<std::string> argv;  // a shell command is {"/bin/sh", "-c", text}
};

enum class BuildState { queued, running, saved, failed, cancelled, timedOut };
std::string stateName(BuildState state);  // "timed-out"

struct BuildStatus {
  Id id;
  BuildState state = BuildState::queued;
  bool cached = false;           // the store had it already
  bool logged = false;           // this attempt has made its log: an older one is gone
  std::optional<int> exit = {};  // once the command has ended
  std::optional<int> signal = {};
  std::string message = {};  // why it failed, for people
  uid_t uid = 0;
  int64_t queued = 0, started = 0, ended = 0;  // seconds since the epoch, 0: not yet
};

/// Counted since the daemon started.
struct BuildTotals {
  uint64_t saved = 0, failed = 0, cancelled = 0, timedOut = 0;
  uint64_t cached = 0;  // requests answered from the store
  uint64_t joined = 0;  // requests that joined a build under way
  double seconds = 0;   // that builds ran
};

class Builds {
 public:
  struct Options {
    unsigned jobs = 0;       // at a time; 0: the number of processors
    std::string mount;       // where builds/<id> can be reached; empty: use the path on disk
    std::string supervisor;  // the program kiln-supervise
    std::chrono::milliseconds grace{5000};  // between SIGTERM and SIGKILL
  };
  static std::unique_ptr<Builds> create(Store& store, Leases& leases, Options options);
  /// Cancels what is queued or running and waits for it.
  virtual ~Builds() = default;

  /// Queues a build, or joins the one that is under way, or finds the result (state saved, cached).
  /// Nobody waits for it, so it is not cancelled when its last waiter leaves. A base that is queued
  /// or running is waited for; a build whose base fails, fails. ENOENT: no such base. EPERM: `user`
  /// without the right to. ESHUTDOWN: stopping. EINVAL: a source that can't be copied.
  /// May block: an automatic id is made from the content of what is copied. If that has changed by
  /// the time it was copied, the build fails.
  virtual Expected<BuildStatus> submit(const BuildRequest& request, const Requester& who,
                                       Interrupt& interrupt) = 0;
  /// As submit, and waits for the end, whatever that is. EINTR when interrupted: the build is
  /// cancelled if this was its last waiter, nobody queued it with submit(), and no queued build
  /// has it as base.
  virtual Expected<BuildStatus> run(const BuildRequest& request, const Requester& who,
                                    Interrupt& interrupt) = 0;
  /// Waits for the end of a build; EINTR as run(). ENOENT: neither known nor stored.
  virtual Expected<BuildStatus> wait(const Id& id, Interrupt& interrupt) = 0;

  /// Copies directory `source`, with the requester's rights, into a new result without a base, and
  /// removes the log of an earlier build of it. Not counted among `jobs`. Blocks. EEXIST: `id` is
  /// stored; EBUSY: it is being built; ENOENT, ENOTDIR, EACCES: the source; EINTR; EIO: the copying
  /// failed, with rsync's words.
  virtual Status importTree(const Id& id, const std::string& source, const Requester& who,
                            Interrupt& interrupt) = 0;
  /// Copies result `id`, with the requester's rights, to `destination`, a directory that is empty
  /// or made (one level). Blocks. ENOENT; ENOTEMPTY, ENOTDIR: the destination; EINTR; EIO.
  virtual Status exportTree(const Id& id, const std::string& destination, const Requester& who,
                            Interrupt& interrupt) = 0;
  /// ENOENT: not queued or running. EACCES: `who` is neither root, the daemon's user, nor its
  /// owner.
  virtual Status cancel(const Id& id, const Requester& who) = 0;

  virtual std::optional<BuildStatus> status(const Id& id) const = 0;
  /// Those under way, the running ones first, then those that ended, the last one first.
  virtual std::vector<BuildStatus> list() const = 0;
  virtual BuildTotals totals() const = 0;
  /// True while `id` is queued or running: its log may still grow.
  virtual bool underWay(const Id& id) const = 0;
  /// The tmpdir of a running build, or null: what builds/<id> shows.
  virtual std::shared_ptr<Workspace> workspace(const Id& id) const = 0;
  /// Whether builds/<id> may be another tmpdir soon, without the build having ended: the first
  /// attempt of two. To be asked before workspace(), then it is right for what that gives.
  virtual bool mayBeRetried(const Id& id) const = 0;
  /// Refuses new builds, cancels the others and waits for their end. Idempotent; from any thread,
  /// also from several at once.
  virtual void stop() = 0;
};

}  // namespace kilnfs
