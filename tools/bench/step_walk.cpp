// Walking and reading a whole tree, with the programs that people use for it.
#include <fmt/format.h>

#include <algorithm>

#include "tools/bench/command.h"
#include "tools/bench/step.h"
#include "tools/bench/tree.h"

namespace kilnfs::bench {
namespace {

// Seconds of a pipeline; what it printed is compared between the contenders.
Expected<double> timed(const std::string& line, const std::string& check) {
  const auto ran = runOk({"bash", "-o", "pipefail", "-c", line}, Group::kOurs);
  if (!ran) return Failure(ran.error());
  tellCheck(check, ran->output);
  return ran->seconds;
}

// The best of `times`, after one to warm up.
Status warm(const std::string& line, const std::string& name, int times) {
  double best = 0;
  for (int i = 0; i <= times; ++i) {
    const auto seconds = timed(line, name);
    if (!seconds) return Failure(seconds.error());
    if (i > 0) best = i == 1 ? *seconds : std::min(best, *seconds);
  }
  tellValue(name, best);
  return {};
}

}  // namespace

Status stepWalk(const StepOptions& /*options*/) {
  const std::string find = "find . -type f | wc -l";
  const auto first = timed(find, "walk.find");
  if (!first) return Failure(first.error());
  tellValue("walk.find-first", *first);
  if (auto done = warm(find, "walk.find-warm", 3); !done) return done;
  if (auto done = warm("find . -printf '%s\\n' | wc -l", "walk.stat-warm", 3); !done) return done;
  if (auto done = warm("tar cf - . | cat > /dev/null", "walk.tar", 1); !done) return done;
  return warm(fmt::format("grep -rl {} . | wc -l", kNeedle), "walk.grep", 1);
}

}  // namespace kilnfs::bench
