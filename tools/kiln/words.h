// The words of a command, on their way from kiln's command line into one line for `control`.
#pragma once

#include <string>
#include <string_view>

#include "store/base/error.h"
#include "store/control/words.h"

namespace kilnfs {

/// The words quoted, with blanks between them and a newline at the end.
std::string commandLine(const Words& words);

/// The same command with relative paths made absolute from `cwd`: --copy of build, SOURCE of
/// import, DEST of export. Other commands come back as they are.
Words withAbsolutePaths(Words words, const std::string& cwd);

/// Whether --help or -h is among a command's own options: before `--`, and no option's value.
bool asksForHelp(const Words& words);

/// What `kiln build` itself understands, taken out of the words.
struct BuildWords {
  Words words;          // for control: "build", "--wait" unless detached, the rest
  bool detach = false;  // --detach: queue it, print the id, return
  bool json = false;    // --json: print the answer, not the log
  std::string id;       // as named; empty: none was
};
BuildWords splitBuildWords(const Words& words);

/// `--cache NAME`, `NAME:DIR` or `NAME=DIR` of kiln run.
struct CacheOption {
  std::string name;
  std::string directory;  // empty: none was given
};
Expected<CacheOption> parseCacheOption(std::string_view text);

}  // namespace kilnfs
