#include "tools/bench/kiln.h"

#include <fmt/format.h>

namespace kilnfs::bench {

Expected<std::unique_ptr<Kiln>> Kiln::start(Setup setup) {
  std::unique_ptr<Kiln> kiln(new Kiln(std::move(setup)));
  if (auto started = kiln->restart(); !started) return Failure(started.error());
  return kiln;
}

Status Kiln::restart() {
  served_.reset();
  auto served =
      Served::start({setup_.program, setup_.store, setup_.mnt, "-f", "-o", setup_.options},
                    setup_.mnt, setup_.log);
  if (!served) return Failure(served.error());
  served_.emplace(std::move(*served));
  return {};
}

Status Kiln::command(const Words& words) const {
  auto opened = control();
  if (!opened) return Failure(opened.error());
  const auto answer = ask(*opened, words);
  if (!answer) return Failure(answer.error());
  return {};
}

Expected<nlohmann::json> ask(ControlFile& control, const Words& words) {
  auto answer = control.command(words);
  if (!answer) return Failure(answer.error());
  if (!answer->ok) return fail(EIO, fmt::format("{}: {}", words[0], failureText(*answer)));
  return std::move(answer->json);
}

}  // namespace kilnfs::bench
