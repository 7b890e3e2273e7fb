// kiln: the command-line client of kilnfs. What follows `kiln` is what one writes to `control`;
// a few commands more make it comfortable.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "store/base/standard_fds.h"
#include "tools/kiln/answer.h"
#include "tools/kiln/commands.h"
#include "tools/kiln/control_file.h"
#include "tools/kiln/help.h"
#include "tools/kiln/mount.h"
#include "tools/kiln/words.h"

namespace kilnfs {
namespace {

int help(const std::string& mountOption, const Words& words) {
  if (words.size() < 2 || words[1] != "control") {
    const std::string own = words.size() < 2 ? "" : commandHelp(words[1]);
    std::cout << (own.empty() ? generalHelp() : own) << std::flush;
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
  // What only the store knows is refused by the store.
  if (asksForHelp(words) && !commandHelp(name).empty()) return help(mountOption, {"help", name});
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
  const auto isTag = [](const std::string& word) {
    return word == "--as" || word.starts_with("--as=");
  };
  if (name == "lease" && std::none_of(words.begin(), words.end(), isTag)) {
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
    std::cerr << generalHelp();
    return kExitUsage;
  }
  if (words[0].starts_with("-")) {
    return complain("unknown option " + inQuotes(words[0]) + "; see kiln help", kExitUsage);
  }
  return dispatch(mount, words, json);
}

// What was printed may not have got out: to a full disk, or where there is no stdout.
int flushed(int status) {
  if (std::cout.flush() || status != 0) return status;
  return complain("stdout: it can't be written to");
}

}  // namespace
}  // namespace kilnfs

int main(int argc, char** argv) {
  if (!kilnfs::holdStandardFds()) return kilnfs::kExitRefused;
  return kilnfs::flushed(kilnfs::run(argc, argv));
}
