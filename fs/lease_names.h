// Which leases' names the kernel may keep, so that a path to a file in one costs no look-up each
// time.
//
// A lease is its holder's alone: when others look its name up they are refused. Of a name that the
// kernel keeps nobody asks us, so its root must refuse them: while the name is kept, the root shows
// an ACL to the kernel that lets only its owner in. The kernel asks for that only if somebody else
// is at the door, and then also for who stands in the lease already, with the working directory or
// a descriptor of the holder's program that started it: to them the mode applies, as on any
// directory. From then on the name is not kept any more.
//
// Thread-safe; does no I/O but to look at /proc.
#pragma once

#include <sys/stat.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

namespace kilnfs {

/// Leases are named by the keys of their trees.
class LeaseNames {
 public:
  /// Whether the kernel may keep the name of a lease, of which these are its root's attributes;
  /// if so, it is taken to do so.
  bool keep(const std::string& lease, uid_t holder, const struct stat& root);
  /// Whom alone the root of a lease lets in; nothing: whom its attributes do.
  std::optional<uid_t> letsIn(const std::string& lease) const;
  /// First the name must not be kept any more (true: see to that, nobody else does), then, once the
  /// kernel has forgotten it and those who are on their way by it have been refused, the root lets
  /// in whom its attributes do.
  bool keepNoMore(const std::string& lease);
  void open(const std::string& lease);
  /// Waits for that, or for the end of the lease.
  void awaitOpen(const std::string& lease, std::chrono::milliseconds limit) const;
  void ended(const std::string& lease);

  /// Whether such attributes of a root can be narrowed down to its owner by an ACL.
  static bool canBePrivate(uid_t holder, const struct stat& root);
  /// The ACL, as an extended attribute.
  static std::string privateAcl();

 private:
  enum class State { kept, notKept, open };
  struct Lease {
    uid_t holder = 0;
    State state = State::kept;
  };
  mutable std::mutex mutex_;
  mutable std::condition_variable opened_;         // or ended
  std::unordered_map<std::string, Lease> leases_;  // guarded by mutex_
};

/// Whether a process has its working directory, or something open, at or below `directory`. An
/// outsider can't, so long as the directory lets none in, unless somebody gave it to them.
bool standsIn(pid_t process, const std::string& directory);

}  // namespace kilnfs
