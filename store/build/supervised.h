// One command under kiln-supervise: started, watched against a deadline, ended, reaped, with
// everything that it started.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "store/base/interrupt.h"
#include "store/build/account.h"
#include "store/build/supervisors.h"

namespace kilnfs {

class Supervised {
 public:
  using Clock = std::chrono::steady_clock;

  struct Spec {
    std::vector<std::string> argv;
    std::vector<std::string> env;  // all of it
    std::string dir;               // absolute
    std::string below;             // start in this directory below `dir`, made if need be
    std::string plain;             // a name there that must not be a symbolic link
    std::vector<std::pair<std::string, std::string>> links;  // {path below dir, target}: there only
                                                             // while the command runs
    std::string bind;      // a directory on disk that the command alone has at `dir`
    int namespaceFd = -1;  // of the mount namespace that has it, if not ours; the caller keeps it
    Account account;
    int outputFd = -1;  // standard output and error; the caller keeps it
    std::chrono::milliseconds grace{5000};
  };

  struct End {
    std::optional<int> exit;  // one of these two, unless `error`
    std::optional<int> signal;
    bool interrupted = false;    // ended by us, at the caller's wish
    bool timedOut = false;       // ended by us, at the deadline
    std::optional<Error> error;  // it did not run, or its output was lost
    bool ok() const { return !interrupted && !timedOut && !error && exit == 0; }
  };

  /// Starts the supervisor, which waits for run(). Destroyed before that, nothing is run.
  static Expected<Supervised> start(Supervisors& supervisors, const Spec& spec);

  /// The ancestor of all that the command will be.
  pid_t pid() const { return process_.pid; }

  /// Lets the command run and waits until nothing is left of it. Blocks.
  End run(Interrupt& interrupt, std::optional<Clock::time_point> deadline);

 private:
  Supervised(Supervisors::Forked process, UniqueFd status, UniqueFd wake)
      : process_(std::move(process)),
        status_(std::move(status)),
        wake_(std::make_shared<UniqueFd>(std::move(wake))) {}
  void watch(Interrupt& interrupt, std::optional<Clock::time_point> deadline, End& end);

  Supervisors::Forked process_;
  UniqueFd status_;                 // what it reports
  std::shared_ptr<UniqueFd> wake_;  // an interrupt has it too, and may fire when we are gone
};

/// "exited with status 3", "was killed by signal 9 (Killed)", "timed out", ...
std::string describe(const Supervised::End& end);

}  // namespace kilnfs
