// Commands that the store runs: argument vectors only, never a shell. The one place that knows
// Boost.Process.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "store/base/error.h"
#include "store/base/fd.h"
#include "store/base/interrupt.h"

namespace kilnfs {

/// A child process. Destroying one that has not been waited for kills its group and reaps it.
class Process {
 public:
  struct Options {
    std::optional<std::vector<std::string>> env;  // "K=V"; absent: the daemon's own
    int stdinFd = -1;  // -1: /dev/null; the caller keeps ownership of all of these
    int stdoutFd = -1;
    int stderrFd = -1;
    bool ownGroup = true;  // a process group of its own
  };
  struct Outcome {
    std::optional<int> exit;
    std::optional<int> signal;
    bool ok() const { return exit == 0; }
  };

  /// The environment of programs of our own, whatever the daemon's is.
  static std::vector<std::string> helperEnvironment() {
    return {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"};
  }

  /// Starts argv[0] (looked up in PATH unless it has a slash). ENOENT: no such program.
  /// Thread-safe; descriptors of the daemon are not inherited but for those given.
  static Expected<Process> start(const std::vector<std::string>& argv, const Options& options);

  Process(Process&&) noexcept;
  Process& operator=(Process&&) noexcept;
  ~Process();

  pid_t pid() const { return pid_; }
  /// Becomes readable when the process has ended.
  int pidfd() const { return pidfd_.get(); }
  /// Reaps the process; blocks until it has ended. Call once.
  Outcome wait();
  /// Sends a signal to its process group (or to it alone, without ownGroup).
  void signal(int number) const;

 private:
  Process() = default;
  void kill();

  pid_t pid_ = -1;
  bool ownGroup_ = true;
  UniqueFd pidfd_;
};

/// Runs a command to its end. EINTR when interrupted (the command is killed); EIO with the last
/// lines of its standard error when it fails. Blocks.
Status runCommand(const std::vector<std::string>& argv, Interrupt& interrupt);

}  // namespace kilnfs
