// Jobs as the kernel shows them in /proc: process groups, their sessions and terminals.
// Stateless and thread-safe. Never touches a path through a process's own view of files.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace kilnfs {

struct ProcessInfo {
  pid_t pid = 0;
  char state = '?';
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;
  int terminal = 0;        // device number; 0: none
  uint64_t startTime = 0;  // clock ticks since boot: tells a reused pid from the old one
};

/// Nothing: no such process.
std::optional<ProcessInfo> readProcess(pid_t pid);

/// The process and its ancestors, nearest first.
std::vector<ProcessInfo> ancestry(pid_t pid);

/// A process group, told apart from a later one with the same number.
struct Job {
  pid_t group = 0;
  uint64_t leaderStart = 0;  // 0: the leader had ended when we first saw the group
};
Job jobOf(const ProcessInfo& member);

/// Whether a process is left in the job. Zombies do not count: nobody need reap them first.
bool alive(const Job& job);

/// Whether the job is an interactive shell itself: its leader leads a session on a terminal.
bool isInteractiveShell(const Job& job);

/// Whether a process of the session stands in a directory whose path has `part` in it, as in
/// "/leases/npm.3". Reads links only, so it never waits for a file system.
bool sessionStandsIn(pid_t session, const std::string& part);

}  // namespace kilnfs
