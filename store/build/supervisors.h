// Where supervisors come from: one process of the program kiln-supervise, which forks them.
//
// To fork the daemon costs what it holds in memory, in its own page faults too, and to start a
// program costs its linking: for a short command both are more than the command. The process that
// forks is small, is started at the first use, and again if somebody has killed it.
#pragma once

#include <sys/types.h>

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "store/base/process.h"

namespace kilnfs {

/// Thread-safe. Its end is not that of the supervisors that it has forked.
class Supervisors {
 public:
  /// `program` is kiln-supervise; `label` says in a list of processes what it works for.
  Supervisors(std::string program, std::string label)
      : program_(std::move(program)), label_(std::move(label)) {}

  struct Forked {
    pid_t pid = 0;
    UniqueFd pidfd;  // readable when it has ended
    UniqueFd go;     // its standard input
  };
  /// Forks a supervisor that has `fds` as its descriptors 1, 3, 4, ... (tools/supervise/main.cpp
  /// says what it takes them for). The caller keeps them. Blocks until it is there.
  Expected<Forked> fork(const std::vector<int>& fds);

 private:
  struct Server {
    UniqueFd requests;
    Process process;  // ended first: else it might be about to end by itself
  };
  Status ask(const std::vector<int>& fds);
  Status startServer();

  const std::string program_;
  const std::string label_;
  std::mutex mutex_;
  std::optional<Server> server_;  // guarded by mutex_
};

}  // namespace kilnfs
