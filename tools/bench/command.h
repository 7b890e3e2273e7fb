// Commands that the benchmark runs, and the signals that end it.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "store/base/error.h"

namespace kilnfs::bench {

using Argv = std::vector<std::string>;

/// SIGINT, SIGTERM and SIGHUP end the run: blocking calls fail with EINTR, run() kills what it
/// runs, and everything is taken down by destructors.
void catchSignals();
bool interrupted();

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

struct Ran {
  int status = 0;      // exit status, or 128 + the signal
  std::string output;  // standard output and error
  double seconds = 0;
};

/// Whether the command is a process group (a job) of its own, or dies with us.
enum class Group { kOwn, kOurs };

/// Runs a command to its end, whatever that is. EINTR: the run was interrupted, the command killed.
Expected<Ran> run(const Argv& argv, Group group = Group::kOwn);

/// Runs a command that has to succeed; else EIO with the end of what it said.
Expected<Ran> runOk(const Argv& argv, Group group = Group::kOwn);

bool installed(const std::string& program);

/// The path of this program.
std::string selfPath();

}  // namespace kilnfs::bench
