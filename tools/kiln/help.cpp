#include "tools/kiln/help.h"

#include <fmt/format.h>

#include <array>

namespace kilnfs {
namespace {

// One command. The general page shows `usage` and `what`; the command's own shows `more` too.
struct Entry {
  std::string_view name;
  std::string_view usage;
  std::string_view what;
  std::string_view more = {};
};

constexpr std::array kEntries = {
    Entry{"build", "[ID] [OPTION]... (-c SHELL | -- ARG...)",
          "run a build, show its log, exit with its status",
          R"(  --base ID              the result to start from; waited for if it is being built
  --copy SRC[:DST]       files to bring along; as often as wanted
  --cache NAME[:DST]     a cache to lease for it, reachable at DST; as often as wanted
  --env K=V              add to the environment, which is otherwise clean; as often as wanted
  --user UID[:GID]       run as this user, where you may
  --timeout DUR          kill it after 90, 90s, 5m, 2h or 1d
  --retry                if it fails, run it once more
  --detach               only queue it, and print its id
  --json                 print the store's answer instead of the log
Without ID the id is the SHA-256 of everything that determines the result.
)"},
    Entry{"wait", "ID...", "wait for builds, exit as the first that failed did"},
    Entry{"follow", "ID", "the log until the build ends, whose status is kiln's"},
    Entry{"log", "[-f] ID", "the log of the last attempt; -f as follow"},
    Entry{"cancel", "ID", "end a build"},
    Entry{"run", "--cache NAME[:DIR]... [--timeout DUR] -- CMD [ARG]...",
          "CMD with caches leased for it, at DIR and at MNT/caches/NAME"},
    Entry{"lease", "NAME --as TAG [--ttl DUR]", "lease a cache until it is released",
          "Written to control, without --as, it lasts as long as that is open; with --discard it\n"
          "is published only if it is released before.\n"},
    Entry{"release", "LEASE [--discard]", "end a lease: publish what was changed, or not"},
    Entry{"delete-cache", "NAME [--force]", "delete a cache"},
    Entry{"ls", "[results|logs|caches|leases|builds]", "names, one a line"},
    Entry{"status", "[--json|--table]", "builds, queue, leases, caches, space",
          "A table on a terminal, JSON elsewhere. Of the builds that ended, the last 50.\n"},
    Entry{"events", "[-f]", "what happened, as JSON lines; -f goes on"},
    Entry{"import", "ID SOURCE", "save a copy of a directory as a result"},
    Entry{"export", "ID DEST", "copy a result to a directory"},
    Entry{"delete", "ID [--recursive]", "delete a result, or also what was built on it"},
    Entry{"pin", "ID", "keep a result"},
    Entry{"unpin", "ID", "keep it no longer"},
    Entry{"prune", "[--before DUR] [--max-used SIZE] [--min-free SIZE|PCT] [--max N] [--dry-run]",
          "delete the least recently used results until the limits are kept"},
    Entry{"verify", "[ID...] [--repair]", "compare results with what was recorded of them"},
    Entry{"complete-deletes", "", "wait until all deletions are done on disk"},
    Entry{"help", "[COMMAND | control]", "this, or a command's part of it"},
};

// Beside the usage if that is short, else below it.
std::string line(const Entry& entry) {
  constexpr size_t kColumn = 34;
  const std::string usage =
      fmt::format("  {}{}{}", entry.name, entry.usage.empty() ? "" : " ", entry.usage);
  if (usage.size() < kColumn) return fmt::format("{:<{}} {}\n", usage, kColumn, entry.what);
  return fmt::format("{}\n{:{}} {}\n", usage, "", kColumn, entry.what);
}

}  // namespace

std::string generalHelp() {
  std::string out = "usage: kiln [--mount DIR] [--json] COMMAND ...\n\n";
  for (const Entry& entry : kEntries) out += line(entry);
  return out + R"(
The mount is --mount DIR, else $KILN_MOUNT, else the only one there is. Any other command goes to
the store as it is; `kiln help control` shows what the store understands.
Exit status: the command's own, 128 + its signal; 1 if the store refused or failed, 2 for wrong usage.
)";
}

std::string commandHelp(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (entry.name != name) continue;
    return fmt::format("usage: kiln {}{}{}\n\n{}\n{}{}", entry.name, entry.usage.empty() ? "" : " ",
                       entry.usage, entry.what, entry.more.empty() ? "" : "\n", entry.more);
  }
  return {};
}

}  // namespace kilnfs
