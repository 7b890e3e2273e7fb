// The one grammar of kilnfs: what is written to `control`, and what follows `kiln` on the command
// line. Pure functions: they look at nothing but their arguments.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "store/base/name.h"
#include "store/build/builds.h"
#include "store/control/words.h"

namespace kilnfs {

struct BuildCommand {
  struct Account {
    uid_t uid = 0;
    std::optional<gid_t> gid;  // absent: the user's own group
  };
  BuildRequest request;         // all but `user`
  std::optional<Account> user;  // --user
  bool wait = false;
};
struct WaitCommand {
  std::vector<Id> ids;  // at least one
};
struct FollowCommand {
  Id id;
};
struct CancelCommand {
  Id id;
};
struct DeleteCommand {
  Id id;
  bool recursive = false;
};
struct DeleteCacheCommand {
  CacheName name;
  bool force = false;
};
struct LeaseCommand {
  CacheName name;
  std::optional<std::string> tag;
  std::optional<std::chrono::seconds> ttl;
  bool discard = false;  // what was changed, unless it is released
};
struct ReleaseCommand {
  std::string lease;
  bool discard = false;
};
struct ImportCommand {
  Id id;
  std::string source;
};
struct ExportCommand {
  Id id;
  std::string destination;
};
struct PinCommand {
  Id id;
  bool pin = true;  // else unpin
};
struct PruneCommand {
  PruneLimits limits;  // none: those of the daemon
  bool dryRun = false;
};
struct VerifyCommand {
  std::vector<Id> ids;  // none: all
  bool repair = false;
};
struct CompleteDeletesCommand {};
struct StatusCommand {};
struct HelpCommand {};

using Command = std::variant<BuildCommand, WaitCommand, FollowCommand, CancelCommand, DeleteCommand,
                             DeleteCacheCommand, LeaseCommand, ReleaseCommand, ImportCommand,
                             ExportCommand, PinCommand, PruneCommand, VerifyCommand,
                             CompleteDeletesCommand, StatusCommand, HelpCommand>;

/// Understands one command. EINVAL with a sentence that names the word at fault and says what
/// would be right; EOPNOTSUPP for what the grammar has but this version does not do.
Expected<Command> parseCommand(const Words& words);

/// A command as anybody may read it: values of --env, which may be secrets, are left out.
std::string publicText(Words words);

/// The same of text that is no command: of its first that is not whole the name and the id.
std::string publicBeginning(std::string_view text);

/// The names of the commands, for messages, completion and the client.
std::vector<std::string> commandNames();

/// The text that a reader of `control` gets who has written nothing.
std::string controlHelp();

}  // namespace kilnfs
