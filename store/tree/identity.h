// On whose behalf a file is made: owner, group and umask of the thread that makes it, so that the
// backing file system itself does setgid directories, default ACLs and quotas.
//
// The umask belongs to the process unless a thread has its own fs_struct, and switching the file
// system uid drops capabilities unless the thread's secure bits say otherwise. Both are therefore
// attributes of threads that act for others, and must not reach threads that start commands:
// whoever runs jobs on a pool calls resetThreadIdentity() at the start of each.
#pragma once

#include <sys/types.h>

namespace kilnfs {

struct Creator {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t umask = 022;
};

/// While it lives, files that this thread makes belong to `creator` (if the daemon is root) and
/// get its umask. Not to be nested, nor kept across a call that may start a thread.
class CreateAs {
 public:
  explicit CreateAs(const Creator& creator);
  ~CreateAs();
  CreateAs(const CreateAs&) = delete;
  CreateAs& operator=(const CreateAs&) = delete;

  /// What to pass for the mode of a new file: where the thread could not get a umask of its own,
  /// the umask is applied here, which only default ACLs can tell.
  mode_t mode(mode_t wanted) const;

 private:
  const Creator creator_;
  bool switched_ = false;
};

/// While it lives, this thread may not leave set-id bits on a file that it writes to. Not while
/// another identity is taken.
class WithoutFsetid {
 public:
  WithoutFsetid();
  ~WithoutFsetid();
  WithoutFsetid(const WithoutFsetid&) = delete;
  WithoutFsetid& operator=(const WithoutFsetid&) = delete;

 private:
  bool changed_ = false;
};

/// Remembers the process's umask. Called once, before any thread is started.
void rememberProcessUmask();

/// Gives this thread the identity that the process started with, whichever thread made it.
void resetThreadIdentity();

}  // namespace kilnfs
