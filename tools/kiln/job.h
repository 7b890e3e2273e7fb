// Runs a command as a job of its own: in a process group that has the terminal, if kiln had it.
#pragma once

#include <signal.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "store/base/error.h"

namespace kilnfs {

struct JobEnd {
  int exit = 0;           // the command's status, if it ended by itself
  int signal = 0;         // the signal that killed it, or 0
  bool timedOut = false;  // kiln killed it
};

/// Signals that end kiln, blocked while this object lives, so that what was begun is ended in
/// order; SIGPIPE is ignored, so that nobody has to hear what kiln says of it. Make it before any
/// other thread, and one at a time.
class HeldSignals {
 public:
  HeldSignals();
  ~HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

  /// Waits for one of them, or SIGCHLD, for at most `timeout`; 0 if none came.
  static int wait(std::chrono::milliseconds timeout);
  /// All is as it was before: for a command, in the process that becomes it.
  void letGo() const;

 private:
  sigset_t before_{};
  struct sigaction childrenBefore_ = {};
  struct sigaction pipeBefore_ = {};
};

/// Runs `argv` (found in PATH) and waits for its end, while HeldSignals are held: those that come
/// go to the job. A job that is stopped stops kiln too, and goes on with it. After `timeout` it
/// gets SIGTERM, and SIGKILL five seconds later; also SIGKILL if kiln ends. ENOENT, EACCES...: it
/// could not be started.
Expected<JobEnd> runJob(const std::vector<std::string>& argv,
                        std::optional<std::chrono::milliseconds> timeout, const HeldSignals& held);

}  // namespace kilnfs
