#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "tools/bench/cloners.h"

namespace kilnfs::bench {

std::string readText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Status writeText(const std::string& path, const std::string& text) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
  if (!fd.valid()) return failErrno(path);
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return failErrno(path);
  }
  return {};
}

Expected<double> KilnCloner::build(const std::string& base, const std::string& id) {
  const auto alone = runOk({"true"});
  if (!alone) return Failure(alone.error());
  const Stopwatch watch;
  const auto built = kiln_.command({"build", id, "--base", base, "--wait", "--", "true"});
  const double seconds = watch.seconds();
  if (!built) return Failure(built.error());
  if (auto settled = kiln_.command({"complete-deletes"}); !settled) return Failure(settled.error());
  return std::max(seconds - alone->seconds, 0.0);
}

Expected<double> KilnCloner::erase(const std::string& id) {
  const Stopwatch watch;
  if (::rmdir(kiln_.mnt("results/" + id).c_str()) != 0) return failErrno("rmdir results/" + id);
  const double seconds = watch.seconds();
  if (auto settled = kiln_.command({"complete-deletes"}); !settled) return Failure(settled.error());
  return seconds;
}

Expected<double> KilnCloner::cycle(const std::string& cache, const std::string& text) {
  const Stopwatch watch;
  auto first = kiln_.control();
  if (!first) return Failure(first.error());
  const auto lease = ask(*first, {"lease", cache});
  if (!lease) return Failure(lease.error());
  const std::string directory = kiln_.mnt(lease->value("path", ""));
  if (auto written = writeText(directory + "/" + kSomeFile, text); !written) {
    return Failure(written.error());
  }
  const auto released = ask(*first, {"release", lease->value("lease", "")});
  if (!released) return Failure(released.error());

  auto second = kiln_.control();
  if (!second) return Failure(second.error());
  const auto next = ask(*second, {"lease", cache});
  if (!next) return Failure(next.error());
  const std::string seen = readText(kiln_.mnt(next->value("path", "")) + "/" + kSomeFile);
  const double seconds = watch.seconds();
  if (seen != text) return fail(EIO, "the next lease does not see what was published");
  if (auto ended = ask(*second, {"release", next->value("lease", "")}); !ended) {
    return Failure(ended.error());
  }
  return seconds;
}

Expected<double> KilnCloner::cycleOfJobs(const std::string& cache, const std::string& text) {
  const std::string file = kiln_.mnt("caches/" + cache + "/" + kSomeFile);
  const Stopwatch watch;
  const auto wrote = runOk({"sh", "-c", fmt::format("printf %s '{}' > '{}'", text, file)});
  if (!wrote) return Failure(wrote.error());
  const auto read = runOk({"sh", "-c", fmt::format("cat '{}'", file)});
  if (!read) return Failure(read.error());
  const double seconds = watch.seconds();
  if (read->output != text) return fail(EIO, "the next job does not see what was published");
  return seconds;
}

Expected<std::vector<std::shared_ptr<KilnCloner>>> makeKilnCloners(Site& site) {
  const auto copy = site.kiln(StoreMode::kCopy);
  if (!copy) return Failure(copy.error());
  const auto hardlink = site.kiln(StoreMode::kHardlink);
  if (!hardlink) return Failure(hardlink.error());
  return std::vector{std::make_shared<KilnCloner>(**copy, "kiln-copy"),
                     std::make_shared<KilnCloner>(**hardlink, "kiln-link")};
}

}  // namespace kilnfs::bench
