// What `kiln help`, `kiln help COMMAND` and `kiln COMMAND --help` print.
#pragma once

#include <string>
#include <string_view>

namespace kilnfs {

/// All commands, in a screen.
std::string generalHelp();

/// How one command is used, and its options; empty for a command that kiln does not know.
std::string commandHelp(std::string_view name);

}  // namespace kilnfs
