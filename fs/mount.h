// What all nodes of one mount share: the store's parts, the tables, and the way to a worker.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fs/access_times.h"
#include "fs/lease_names.h"
#include "fs/open_files.h"
#include "fs/quiet_mount.h"
#include "fs/session.h"
#include "fs/stale_names.h"
#include "fs/tables.h"
#include "store/base/workers.h"
#include "store/tree/trees.h"

struct fuse_session;

namespace kilnfs {

/// Seconds for which the kernel may believe what only changes through itself.
constexpr double kForever = 1e9;

class Mount {
 public:
  Mount(Parts parts, const MountOptions& options);
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

  Store& store() const { return *parts_.store; }
  Leases& leases() const { return *parts_.leases; }
  Builds& builds() const { return *parts_.builds; }
  Control& control() const { return *parts_.control; }
  const MountOptions& options() const { return options_; }

  NodeTable nodes;
  HandleTable handles;
  OpenFiles opens;
  const QuietMount quiet;
  const AccessTimes accessTimes;
  StaleNames staleNames;
  LeaseNames leaseNames;
  Trees trees;
  std::atomic<bool> passthrough{false};  // the kernel grants it; off once it was found not to work

  /// Tells the kernel that what it knows of a node's attributes is not right any more.
  void attributesChanged(uint64_t node) const;
  /// Gives the kernel the first `size` bytes of a file, to keep as if it had asked for them.
  void givePages(uint64_t node, int fd, size_t size) const;
  /// Set once, before requests come.
  void setSession(fuse_session* session);

  /// Runs `job` on a worker, whose threads have the daemon's own identity: they may start commands
  /// and other threads. The session's threads must not.
  void later(std::function<void()> job);
  /// The same for a request. ENOTCONN to its caller, and no job, once we finish.
  void later(Reply reply, std::function<void(Reply)> job);
  /// The same for what may wait for a job of later(), or for what others ask us: on workers of its
  /// own, so that those who are waited for always find one.
  void laterWaiting(std::function<void()> job);
  void laterWaiting(Reply reply, std::function<void(Reply)> job);
  /// The same; the Interrupt is raised by a signal to the caller, or at the end.
  void laterInterruptible(Reply reply, std::function<void(Reply, Interrupt&)> job);
  /// Ends all that waits, and waits for the workers, whatever goes on being asked. From now on the
  /// kernel is not told what is stale.
  void finish();
  /// The same, but waits no longer than `limit`; false: not all have ended.
  bool finishFor(std::chrono::milliseconds limit);

  /// Answers a look-up, and takes the count back if the answer did not arrive.
  void answerEntry(Reply reply, const NodeRef& node, const struct stat& st, double entryTimeout,
                   double attributeTimeout);
  /// Answers an open; closes again if the answer did not arrive.
  void answerOpen(Reply reply, std::shared_ptr<Handle> handle, OpenAnswer answer);
  /// Gives what was closed: it may be destroyed only after `opens` was asked for what is unused
  /// now.
  std::shared_ptr<Handle> close(uint64_t handle);

  /// Answers with the space of the file system that the store is on.
  void answerSpace(Reply reply) const;

  /// Attributes of a node that is not a file on disk; its owner is who mounted.
  struct stat ownAttributes(uint64_t number, mode_t mode) const;
  /// Answers with the result of a verb, and records a refusal where `errors` shows it.
  void answerVerb(Reply reply, const std::string& command, const Status& result) const;

 private:
  const Parts parts_;
  const MountOptions options_;
  const struct timespec started_;
  fuse_session* session_ = nullptr;
  std::atomic<bool> finishing_{false};
  std::mutex mutex_;
  std::vector<std::weak_ptr<Interrupt>> waiting_;  // guarded by mutex_
  size_t pruneAt_ = 64;                            // guarded by mutex_
  // Last: destroyed first, their jobs use the others.
  Workers workers_;
  Workers waiters_;
};

}  // namespace kilnfs
