// kiln-bench: measures kilnfs against the native directory and whichever peers are installed.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <string_view>

#include "store/base/standard_fds.h"
#include "tools/bench/report.h"
#include "tools/bench/runner.h"
#include "tools/bench/step.h"

namespace kilnfs::bench {

const std::vector<Workload>& workloads() {
  static const std::vector<Workload> all = {
      walkWorkload(),  ioWorkload(),     smallWorkload(),  workWorkload(),   leaseWorkload(),
      buildWorkload(), deleteWorkload(), buildsWorkload(), memoryWorkload(), chainWorkload()};
  return all;
}

namespace {

constexpr int kExitFailed = 1;
constexpr int kExitInterrupted = 130;

int complain(const Error& error) {
  fmt::print(stderr, "kiln-bench: {}\n", error.message);
  return kExitFailed;
}

std::vector<std::string> names() {
  std::vector<std::string> found;
  for (const auto& workload : workloads()) found.push_back(workload.name);
  return found;
}

bool wanted(const Options& options, const std::string& name) {
  return options.only.empty() ||
         std::find(options.only.begin(), options.only.end(), name) != options.only.end();
}

struct Outcome {
  std::vector<nlohmann::json> workloads;
  bool over = false;
  bool failed = false;
};

Outcome measureAll(Site& site) {
  Outcome outcome;
  for (const auto& workload : workloads()) {
    if (!wanted(site.options(), workload.name)) continue;
    const auto rounds = measure(site, workload);
    if (interrupted()) break;
    if (!rounds) {
      site.say(fmt::format("{} can't be measured: {}", workload.name, rounds.error().message));
      outcome.failed = true;
      continue;
    }
    printTable(workload.name, workload.title, *rounds);
    std::cout.flush();
    outcome.workloads.push_back(toJson(workload.name, *rounds));
    outcome.over = outcome.over || anyOver(*rounds);
  }
  return outcome;
}

int runAll(const Options& options) {
  catchSignals();
  const auto site = Site::create(options);
  if (!site) return complain(site.error());
  const Outcome outcome = measureAll(**site);
  if (!options.json.empty()) {
    const auto report =
        reportOf(options, (*site)->said(), outcome.workloads, !outcome.failed && !interrupted());
    std::ofstream out(options.json);
    out << report.dump(1) << "\n";
    if (!out.flush()) return complain({EIO, "can't write " + options.json});
  }
  if (interrupted()) return kExitInterrupted;
  return outcome.failed || (options.check && outcome.over) ? kExitFailed : 0;
}

}  // namespace
}  // namespace kilnfs::bench

int main(int argc, char** argv) {
  using namespace kilnfs::bench;
  if (!kilnfs::holdStandardFds()) return kExitFailed;
  if (argc > 1 && std::string_view(argv[1]) == "step") return stepMain(argc - 1, argv + 1);
  const auto options = parseOptions(argc, argv, names(), selfPath());
  return options ? runAll(*options) : options.error();
}
