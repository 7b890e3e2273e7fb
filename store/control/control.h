// The control file: commands in, answers out. One Control for a mount, one ControlSession for each
// open of the file. Also makes the texts of `errors` and `metrics`, which report on commands.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "store/base/interrupt.h"
#include "store/base/requester.h"
#include "store/build/builds.h"
#include "store/leases.h"
#include "store/store.h"

namespace kilnfs {

/// One open control file. Calls may come from several threads at once.
class ControlSession {
 public:
  /// Ends what is bound to the open file: its waits, and its leases (publishing may block).
  virtual ~ControlSession() = default;

  /// One write(2) at `offset`: one or more whole commands. Runs them in order and stops at the
  /// first that fails, with its error; every command that ran has an answer to be read. Blocks
  /// while a command does, so it is called on a worker. E2BIG: longer than kLongestWrite. EINTR:
  /// interrupted.
  ///
  /// A command that is not whole where a write of full blocks ends was cut by its writer's buffer:
  /// it waits for the rest, in the next write of the same user's. EINVAL: another's, or what came
  /// before the cut has failed. One that is still cut when the file is closed shows in errors().
  virtual Status write(uint64_t offset, std::string_view text, const Requester& who,
                       Interrupt& interrupt) = 0;

  /// Reads at `offset`: the answers to the commands written (one JSON line each), or, before the
  /// first write, the help text. A sequential reader finds the answers at the offset where
  /// its last write ended, one that seeks to 0 finds them there. Empty at the end. Blocks only
  /// after `follow`, for the rest of a log.
  virtual Expected<std::string> read(uint64_t offset, size_t size, Interrupt& interrupt) = 0;

  static constexpr size_t kLongestWrite = 65536;
  /// Sizes of writers' buffers are multiples of that.
  static constexpr size_t kBlock = 4096;
};

class Control {
 public:
  static std::unique_ptr<Control> create(Store& store, Leases& leases, Builds& builds);
  virtual ~Control() = default;

  virtual std::unique_ptr<ControlSession> open() = 0;
  /// The last refused or failed commands, one line each: when, who, the command, why. Everybody
  /// may read it: without what is secret (publicText).
  virtual std::string errors() const = 0;
  /// Records a refusal that came by another door (rmdir results/<id>).
  virtual void recordError(const Requester& who, std::string_view command, const Error& error) = 0;
  /// Prometheus text format.
  virtual std::string metrics() const = 0;
  /// What `control` gives to who reads before writing, and `kiln help control` prints.
  static std::string help();
};

}  // namespace kilnfs
