// Options and positional words of a command, as a table says.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/control/words.h"

namespace kilnfs {

struct OptionSpec {
  std::string_view name;   // "--base", "-c"
  std::string_view value;  // what its value is called in messages; empty: it takes none
  bool repeats = false;
};

struct CommandSpec {
  std::string_view name;
  std::string_view usage;      // what follows the name
  size_t least = 0, most = 0;  // positional words
  std::vector<OptionSpec> options = {};
  bool argvAfterDashes = false;  // "--" begins a command line of its own, else it ends the options
};

struct ParsedWords {
  Words positional;
  std::vector<std::pair<std::string_view, std::string>> options;  // in the order written
  std::optional<Words> argv;                                      // what followed "--"

  bool has(std::string_view name) const { return find(name) != nullptr; }
  const std::string* find(std::string_view name) const;  // the value of the last such option
};

/// Sorts the words after the command's name. EINVAL: an unknown option, one twice that does not
/// repeat, one without its value, too many or too few words; the message ends with the usage.
Expected<ParsedWords> parseWords(const CommandSpec& spec, const Words& words);

/// EINVAL for a misuse of the command: "MESSAGE; usage: build [ID] ...".
Failure usageError(const CommandSpec& spec, const std::string& message);

}  // namespace kilnfs
