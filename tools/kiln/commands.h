// kiln's own commands. Each takes its words (the first is its name) and returns kiln's exit status;
// what went wrong has been said on stderr by then.
#pragma once

#include <string>

#include "store/control/words.h"

namespace kilnfs {

/// `build`: queued with --wait; the log goes to stdout while it runs.
int runBuild(const std::string& mount, const Words& words);
/// Any other command of the control file; its answer goes to stdout as JSON, or for people.
int runControlCommand(const std::string& mount, const Words& words, bool json);
/// `follow ID`: the log from its beginning to the end of the build; the status is that of `wait`,
/// and 0 if nothing is known of the build but its log.
int runFollow(const std::string& mount, const Words& words);

int runStatus(const std::string& mount, const Words& words, bool json);
int runLog(const std::string& mount, const Words& words);
int runList(const std::string& mount, const Words& words);
int runEvents(const std::string& mount, const Words& words);

/// `run --cache NAME[:DIR] -- CMD`: CMD with caches leased for it.
int runJobWithCaches(const std::string& mount, const Words& words);

/// "kiln: TEXT" on stderr; gives `status` back.
int complain(const std::string& text, int status = 1);

}  // namespace kilnfs
