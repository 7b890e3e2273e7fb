// Leases as users meet them: bound to a holder, found by name, released when the holder is gone.
//
// A lease has one Holder:
//   job     a process group; ends when no process is left in it and nothing in the lease is open
//   handle  an open control file; ends when that is closed
//   tag     nobody in particular; lasts until it is released, or its time to live is over
//   build   a build of the daemon; ended by it
// The workspace is made at first use, so that merely reading the link (ls -l caches/) copies
// nothing. Thread-safe. Functions that copy or publish block; the others do not.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/base/requester.h"
#include "store/store.h"

namespace kilnfs {

struct LeaseInfo {
  std::string lease;  // "npm.3": the name below leases/
  std::string cache;  // "npm"
  uint64_t generation = 0;
  std::string holder;  // "job 1234", "tag ci-17", "build x", "handle of 1234"
  uid_t uid = 0;
  int64_t since = 0;  // seconds since the epoch
  int opens = 0;
  bool used = false;  // its workspace has been made
};

class Leases {
 public:
  struct Options {
    std::chrono::milliseconds linger{2000};  // for interactive shells that left
    std::chrono::milliseconds poll{100};     // how often jobs are looked at
  };
  static std::unique_ptr<Leases> create(Store& store, Options options);
  /// Ends what is left as if its holders were gone, then ends. Nothing may be open in a lease any
  /// more.
  virtual ~Leases() = default;

  /// The lease of the caller's job (or of an ancestor that holds one) on `name`; a new one if there
  /// is none, after leases on `name` whose holder is gone have been released. Gives the
  /// lease's name. Blocks while one that ends is being published.
  virtual Expected<std::string> follow(const CacheName& name, const Requester& caller) = 0;

  /// Ends the leases on `name` whose holder is gone, which publishes them: blocks meanwhile.
  virtual void settle(const CacheName& name) = 0;

  /// A lease for a build's command. Its processes are told by `bindGroup`.
  virtual Expected<LeaseInfo> forBuild(const CacheName& name, const Requester& owner,
                                       const Id& build) = 0;
  /// Processes that descend from `supervisor` share the lease when they follow the cache's link.
  virtual void bindProcess(const std::string& lease, pid_t supervisor) = 0;

  /// A lease that lasts while `handle` (any unique number, from the caller) is open. The
  /// descendants of the process that asked share it. `discard`: what was changed is published only
  /// if it is released before.
  virtual Expected<LeaseInfo> forHandle(const CacheName& name, const Requester& owner,
                                        uint64_t handle, bool discard) = 0;
  /// `lease NAME --as TAG`. The same tag on the same cache by the same user gives the same lease.
  virtual Expected<LeaseInfo> forTag(const CacheName& name, const Requester& owner,
                                     const std::string& tag,
                                     std::optional<std::chrono::seconds> ttl) = 0;

  /// The workspace of a lease, made now if need be (blocks: copies). ENOENT: no such lease, or it
  /// has ended. EACCES: `uid` is neither the holder's nor root.
  virtual Expected<std::shared_ptr<Workspace>> workspace(const std::string& lease, uid_t uid) = 0;

  /// Ends a lease now. ENOENT; EACCES; EBUSY while a file is open for writing in it.
  virtual Expected<Release> release(const std::string& lease, uid_t uid, bool discard) = 0;
  /// Ends all leases of a handle, without an answer: events say what became of them.
  virtual void closeHandle(uint64_t handle) = 0;

  virtual std::vector<LeaseInfo> list() const = 0;
  virtual std::optional<LeaseInfo> find(const std::string& lease) const = 0;
  /// Names under caches/: those in the store and those leased for the first time.
  virtual std::vector<std::string> cacheNames() const = 0;
};

}  // namespace kilnfs
