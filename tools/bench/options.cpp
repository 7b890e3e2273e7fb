#include "tools/bench/options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>

namespace kilnfs::bench {
namespace {

constexpr size_t kMiB = 1 << 20;

Sizes tiny() {
  return {"tiny", 60, 10, 2000, 1, 1 * kMiB, 50, 1 * kMiB, 200, 30, 4, 4, 3, 10, 1000};
}
Sizes quick() {
  return {"quick", 10'000, 1000, 6000, 2,  16 * kMiB, 2000,  64 * kMiB,
          20'000,  600,    24,   40,   30, 300,       50'000};
}
// The tree of which the bounds speak: 30,000 files, 1 GB, 3,000 directories.
Sizes full() {
  return {"full",  30'000, 3000, 14'000, 10,  10 * kMiB, 20'000,   256 * kMiB,
          100'000, 3000,   80,   200,    200, 3000,      1'000'000};
}

std::string temporaryDirectory() {
  const char* dir = std::getenv("TMPDIR");
  return dir != nullptr && *dir != '\0' ? dir : "/tmp";
}

std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ",") + word;
  return text;
}

// The daemon of the same build, else an installed one.
std::string findDaemon(const std::string& self) {
  const std::string beside = self.substr(0, self.rfind('/') + 1) + "kilnfs";
  return ::access(beside.c_str(), X_OK) == 0 ? beside : "kilnfs";
}

}  // namespace

tl::expected<Options, int> parseOptions(int argc, char** argv,
                                        const std::vector<std::string>& workloads,
                                        const std::string& self) {
  Options options;
  options.dir = temporaryDirectory();
  options.kilnfs = findDaemon(self);
  bool isFull = false;
  bool isTiny = false;
  CLI::App app("Measure kilnfs against the native directory and what else is installed.",
               "kiln-bench");
  app.set_help_flag("-h,--help", "Print this help");
  app.set_version_flag("-V,--version", std::string("kiln-bench ") + KILNFS_VERSION);
  app.add_option("--dir", options.dir, "Where to make the temporary directory")
      ->capture_default_str()
      ->check(CLI::ExistingDirectory);
  auto* full_ = app.add_flag("--full", isFull, "30,000 files and 1 GB instead of a quick run");
  app.add_flag("--tiny", isTiny, "Only prove that everything works")->excludes(full_);
  app.add_option("--only", options.only, "Workloads: " + listed(workloads))
      ->delimiter(',')
      ->check(CLI::IsMember(workloads));
  app.add_option("--rounds", options.rounds, "Rounds; each measures every contender once")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--json", options.json, "Also write everything to this file");
  app.add_flag("--check", options.check, "Exit with status 1 when a bound is exceeded");
  app.add_option("--kilnfs", options.kilnfs, "The daemon to measure")->capture_default_str();
  app.add_option("-o", options.daemonOptions, "Options for the daemon's -o");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int status = app.exit(e);
    return tl::unexpected(e.get_exit_code() == 0 ? status : 2);
  }
  options.sizes = isFull ? full() : isTiny ? tiny() : quick();
  return options;
}

}  // namespace kilnfs::bench
