// kiln: the command-line client of kilnfs. What follows `kiln` is what one writes to `control`;
// a few commands more make it comfortable.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "tools/kiln/answer.h"
#include "tools/kiln/commands.h"
#include "tools/kiln/control_file.h"
#include "tools/kiln/mount.h"

namespace kilnfs {
namespace {

constexpr const char* kUsage = R"(usage: kiln [--mount DIR] [--json] COMMAND ...

  build [ID] [OPTION]... (-c SHELL | -- ARG...)
                   run a build, show its log, exit with its status; --detach only queues it and
                   prints its id, --json prints the store's answer instead of the log
  wait ID...       wait for builds             cancel ID        end a build
  follow ID        a log until the build ends  log [-f] ID      the log of the last attempt
  ls [results|logs|caches|leases|builds]       status [--json|--table]
  events [-f]      what happened, as JSON lines
  run --cache NAME[:DIR]... [--timeout DUR] -- CMD [ARG]...
                   CMD with caches leased for it: at DIR, and at MNT/caches/NAME in any case
  lease NAME --as TAG [--ttl DUR]              release LEASE [--discard]
  delete ID [--recursive]                      delete-cache NAME [--force]
  import ID SOURCE                             export ID DEST
  pin ID           keep a result               unpin ID
  prune [--before DUR] [--max-used SIZE] [--min-free SIZE|PCT] [--max N] [--dry-run]
                   delete results, the least recently used first, until the limits are kept
  verify [ID...] [--repair]                    complete-deletes
  help [control]

The mount is --mount DIR, else $KILN_MOUNT, else the only one there is. Any other command goes to
the store as it is; `kiln help control` shows what the store understands.
Exit status: the command's own, 128 + its signal; 1 if the store refused or failed, 2 for wrong usage.
)";

int help(const std::string& mountOption, const Words& words) {
  if (words.size() < 2 || words[1] != "control") {
    std::cout << kUsage << std::flush;
    return 0;
  }
  const auto mount = findMount(mountOption);
  if (!mount) return complain(mount.error().message);
  const auto control = ControlFile::open(*mount);
  if (!control) return complain(control.error().message);
  const auto text = control->help();
  if (!text) return complain(text.error().message);
  std::cout << *text << std::flush;
  return 0;
}

int dispatch(const std::string& mountOption, const Words& words, bool json) {
  const std::string& name = words[0];
  if (name == "help") return help(mountOption, words);
  const auto mount = findMount(mountOption);
  if (!mount) return complain(mount.error().message);
  if (name == "build") {
    Words all = words;
    if (json) all.insert(all.begin() + 1, "--json");
    return runBuild(*mount, all);
  }
  if (name == "run") return runJobWithCaches(*mount, words);
  if (name == "log") return runLog(*mount, words);
  if (name == "ls") return runList(*mount, words);
  if (name == "events") return runEvents(*mount, words);
  if (name == "status") return runStatus(*mount, words, json);
  if (name == "follow") return runFollow(*mount, words);
  if (name == "lease" && std::find(words.begin(), words.end(), "--as") == words.end()) {
    return complain("a lease without --as TAG would end with this command; see also kiln run",
                    kExitUsage);
  }
  return runControlCommand(*mount, words, json);
}

int run(int argc, char** argv) {
  CLI::App app("The command-line client of kilnfs.", "kiln");
  std::string mount;
  bool json = false;
  bool wantsHelp = false;
  app.set_help_flag();
  app.add_flag("-h,--help", wantsHelp);
  app.add_option("--mount", mount);
  app.add_flag("--json", json);
  app.set_version_flag("-V,--version", "kiln " KILNFS_VERSION);
  app.prefix_command();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::Error& e) {
    return complain(std::string(e.what()) + "; see kiln help", kExitUsage);
  }
  const Words words = app.remaining();
  if (wantsHelp) return help(mount, {"help"});
  if (words.empty()) {
    std::cerr << kUsage;
    return kExitUsage;
  }
  if (words[0].starts_with("-")) {
    return complain("unknown option " + inQuotes(words[0]) + "; see kiln help", kExitUsage);
  }
  return dispatch(mount, words, json);
}

}  // namespace
}  // namespace kilnfs

int main(int argc, char** argv) {
  return kilnfs::run(argc, argv);
}
