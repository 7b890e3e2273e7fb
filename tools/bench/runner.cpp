#include "tools/bench/runner.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace kilnfs::bench {
namespace {

// What the one before left to be written is not the next one's to wait for.
void settle(const Site& site) {
  const UniqueFd top(::open(site.path("").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (top.valid()) ::syncfs(top.get());
}

// A contender that gives another answer than native has not done the work.
std::string difference(const Round& round, const std::string& name) {
  const auto native = round.find(kNative);
  if (native == round.end()) return {};
  for (const auto& [check, text] : round.at(name).checks) {
    const auto expected = native->second.checks.find(check);
    if (expected != native->second.checks.end() && expected->second != text) {
      return fmt::format("{} gives {}, native {}", check, text, expected->second);
    }
  }
  return {};
}

class Run {
 public:
  Run(Site& site, const Workload& workload, std::vector<Contender> contenders)
      : site_(site), workload_(workload), contenders_(std::move(contenders)) {}

  Expected<Rounds> rounds() {
    std::vector<std::string> names;
    for (const auto& contender : contenders_) names.push_back(contender.name);
    Rounds rounds(workload_.figures, names);
    unsigned wanted = site_.options().rounds;
    if (workload_.mostRounds != 0) wanted = std::min(wanted, workload_.mostRounds);
    for (unsigned i = 0; i < wanted && !contenders_.empty(); ++i) {
      fmt::print(stderr, "{}: round {} of {}\n", workload_.name, i + 1, wanted);
      auto round = oneRound(i);
      if (!round) return Failure(round.error());
      rounds.add(std::move(*round));
    }
    return rounds;
  }

 private:
  Expected<Round> oneRound(unsigned number) {
    Round round;
    std::vector<std::string> failed;
    for (size_t i = 0; i < contenders_.size(); ++i) {
      const auto& contender = contenders_[(i + number) % contenders_.size()];
      settle(site_);
      auto samples = contender.measure();
      if (interrupted()) return fail(EINTR, "interrupted");
      if (samples) {
        round[contender.name] = std::move(*samples);
      } else {
        leaveOut(contender.name, samples.error().message, failed);
      }
    }
    for (const auto& contender : contenders_) {
      if (!round.contains(contender.name)) continue;
      const std::string what = difference(round, contender.name);
      if (what.empty()) continue;
      leaveOut(contender.name, what, failed);
      round.erase(contender.name);
    }
    std::erase_if(contenders_, [&failed](const Contender& contender) {
      return std::find(failed.begin(), failed.end(), contender.name) != failed.end();
    });
    return round;
  }

  void leaveOut(const std::string& name, const std::string& why, std::vector<std::string>& failed) {
    failed.push_back(name);
    site_.say(fmt::format("{}: {} is left out: {}", workload_.name, name, why));
  }

  Site& site_;
  const Workload& workload_;
  std::vector<Contender> contenders_;
};

}  // namespace

Expected<Rounds> measure(Site& site, const Workload& workload) {
  auto contenders = workload.prepare(site);
  if (!contenders) return Failure(contenders.error());
  return Run(site, workload, std::move(*contenders)).rounds();
}

}  // namespace kilnfs::bench
