// A store of the benchmark's own and the daemon that serves it, used as anybody uses it: through
// the control file and the mounted tree.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tools/bench/mounts.h"
#include "tools/kiln/control_file.h"

namespace kilnfs::bench {

class Kiln {
 public:
  struct Setup {
    std::string program;
    std::string store;    // is there, with the results and caches that it is to begin with
    std::string mnt;      // an empty directory
    std::string options;  // for -o
    std::string log;
  };
  static Expected<std::unique_ptr<Kiln>> start(Setup setup);

  /// Ends the daemon and starts it again: the mount has nothing in its caches.
  Status restart();
  /// One command on a control file of its own. A refusal is an error.
  Status command(const Words& words) const;
  /// A control file, for what lasts as long as it is open. Blocks for nothing.
  Expected<ControlFile> control() const { return ControlFile::open(setup_.mnt); }

  const std::string& mnt() const { return setup_.mnt; }
  const std::string& store() const { return setup_.store; }
  std::string mnt(const std::string& below) const { return setup_.mnt + "/" + below; }
  pid_t pid() const { return served_->pid(); }

 private:
  explicit Kiln(Setup setup) : setup_(std::move(setup)) {}
  const Setup setup_;
  std::optional<Served> served_;
};

/// A command on an open control file: its answer. A refusal is an error.
Expected<nlohmann::json> ask(ControlFile& control, const Words& words);

}  // namespace kilnfs::bench
