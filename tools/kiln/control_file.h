// One open control file, as the client uses it. Calls block as long as the command does. The
// descriptor is owned by this object: what was leased through it lasts as long as it does.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "store/base/error.h"
#include "store/base/fd.h"
#include "store/control/words.h"
#include "tools/kiln/answer.h"

namespace kilnfs {

class ControlFile {
 public:
  static Expected<ControlFile> open(const std::string& mount);

  /// Writes one command and reads its answer. An Error is a failure to talk to the store; a
  /// refusal by the store is an Answer. EINTR comes back as an Error: the wait was ended.
  Expected<Answer> command(const Words& words);

  /// Writes `follow ID` and gives the bytes of the log to `sink` until the build has ended.
  Status follow(const std::string& id, const std::function<Status(std::string_view)>& sink);

  /// What the file says before anything was written to it.
  Expected<std::string> help() const;

 private:
  ControlFile(std::string mount, UniqueFd fd) : mount_(std::move(mount)), fd_(std::move(fd)) {}
  /// The errno of the write, 0 if it was accepted.
  Expected<int> write(const std::string& line) const;
  Expected<std::string> readAll() const;

  std::string mount_;
  UniqueFd fd_;
};

/// All of `bytes` to a descriptor. EPIPE and the like come back as an Error.
Status writeAll(int fd, std::string_view bytes, const std::string& what);

}  // namespace kilnfs
