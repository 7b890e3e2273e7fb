// A developer's day, with the programs that one uses.
#include <fmt/format.h>

#include "tools/bench/command.h"
#include "tools/bench/step.h"

namespace kilnfs::bench {
namespace {

Status step(const std::string& figure, const std::string& line) {
  const auto ran = runOk({"sh", "-ec", line}, Group::kOurs);
  if (!ran) return Failure(ran.error());
  tellValue("work." + figure, ran->seconds);
  return {};
}

}  // namespace

Status stepWork(const StepOptions& options) {
  // The same everywhere: no user's settings, no compiler cache.
  const std::string git =
      "export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null HOME=/nonexistent; "
      "git='git -c user.name=a -c user.email=a@b -c gc.auto=0 -c init.defaultBranch=main'; ";
  auto done = step("unpack", fmt::format("mkdir kiln-bench.work; tar xf '{}' -C kiln-bench.work",
                                         options.archive));
  if (done && installed("git")) {
    done = step("git", git +
                           "cd kiln-bench.work; $git init -q .; $git add -A -f .; "
                           "$git commit -qm all");
  }
  if (done && installed("make") && installed("cc")) {
    done = step("make", "export CCACHE_DISABLE=1; make -s -j2 -C kiln-bench.work");
  }
  if (done) done = step("cp", "cp -r kiln-bench.work kiln-bench.copy");
  if (done) done = step("rm", "rm -rf kiln-bench.work kiln-bench.copy");
  return done;
}

}  // namespace kilnfs::bench
