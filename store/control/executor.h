// Carries out one understood command and makes its answer.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "store/control/command.h"
#include "store/control/followed_log.h"

namespace kilnfs {

/// What a command came to: the fields of its answer, and the error if it failed (which may still
/// have fields: a failed build has an id and a state).
struct Outcome {
  nlohmann::json fields = nlohmann::json::object();
  std::optional<Error> error = {};
  std::unique_ptr<FollowedLog> follow = {};  // of `follow`: there is no answer but the log

  /// {"ok":true,...} or {"ok":false,"errno":...,"message":...,...}, and a newline.
  std::string line() const;
};

class Executor {
 public:
  Executor(Store& store, Leases& leases, Builds& builds)
      : store_(store), leases_(leases), builds_(builds) {}

  /// `handle` is the open control file: leases without a tag are bound to it. Blocks while the
  /// command does. EINTR.
  Outcome execute(const Command& command, uint64_t handle, const Requester& who,
                  Interrupt& interrupt);

 private:
  struct Call {
    uint64_t handle;
    const Requester& who;
    Interrupt& interrupt;
  };
  Outcome run(const BuildCommand& command, const Call& call);
  Outcome run(const WaitCommand& command, const Call& call);
  Outcome run(const FollowCommand& command, const Call& call);
  Outcome run(const CancelCommand& command, const Call& call);
  Outcome run(const DeleteCommand& command, const Call& call);
  Outcome run(const DeleteCacheCommand& command, const Call& call);
  Outcome run(const LeaseCommand& command, const Call& call);
  Outcome run(const ReleaseCommand& command, const Call& call);
  Outcome run(const ImportCommand& command, const Call& call);
  Outcome run(const ExportCommand& command, const Call& call);
  Outcome run(const PinCommand& command, const Call& call);
  Outcome run(const PruneCommand& command, const Call& call);
  Outcome run(const VerifyCommand& command, const Call& call);
  Outcome run(const CompleteDeletesCommand& command, const Call& call);
  Outcome run(const StatusCommand& command, const Call& call);
  Outcome run(const HelpCommand& command, const Call& call);

  Store& store_;
  Leases& leases_;
  Builds& builds_;
};

/// The one object of `status`.
Expected<nlohmann::json> statusObject(Store& store, const Leases& leases, const Builds& builds);
nlohmann::json buildObject(const BuildStatus& status);

}  // namespace kilnfs
