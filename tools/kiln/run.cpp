// kiln run: a command with caches leased for it.
//
// The leases are bound to one open control file, so they end with kiln whatever happens to it; who
// has not released them has not seen the command's end, so what it did is discarded. The command's
// processes descend from kiln, so they get the same leases through MNT/caches/NAME.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "store/base/units.h"
#include "tools/kiln/commands.h"
#include "tools/kiln/control_file.h"
#include "tools/kiln/job.h"
#include "tools/kiln/words.h"

namespace kilnfs {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kRetry{50};
constexpr milliseconds kPatience{2000};
constexpr int kCannotRun = 127;

// A symbolic link that is there as long as this object: the leased copy at the place where the
// command looks for it.
class Link {
 public:
  /// `leases` is the directory of the leased copies.
  static Expected<Link> make(const std::string& leases, const std::string& target,
                             std::string place) {
    while (place.size() > 1 && place.ends_with('/')) place.pop_back();
    const auto parent = std::filesystem::path(place).parent_path();
    std::error_code failed;
    if (!parent.empty() && (std::filesystem::create_directories(parent, failed), failed)) {
      return fail(failed.value(), inQuotes(parent.string()) + ": " + failed.message());
    }
    if (symlink(target.c_str(), place.c_str()) == 0) return Link(target, place);
    if (errno == EEXIST && removeStale(leases, place) &&
        symlink(target.c_str(), place.c_str()) == 0) {
      return Link(target, place);
    }
    if (errno == EEXIST) {
      return fail(EEXIST, inQuotes(place) + " exists; the cache needs a place where nothing is");
    }
    return failErrno("link to the cache at " + inQuotes(place));
  }
  Link(Link&& other) noexcept : target_(std::move(other.target_)), place_(std::move(other.place_)) {
    other.place_.clear();
  }
  Link(const Link&) = delete;
  Link& operator=(Link&&) = delete;
  Link& operator=(const Link&) = delete;
  ~Link() {
    // Only ours: the command may have put something else there.
    if (!place_.empty() && targetOf(place_) == target_) unlink(place_.c_str());
  }

 private:
  // Empty if it is no link.
  static std::string targetOf(const std::string& place) {
    std::array<char, PATH_MAX> found{};
    const ssize_t n = readlink(place.c_str(), found.data(), found.size());
    return n < 0 ? std::string() : std::string(found.data(), static_cast<size_t>(n));
  }

  // Removes the link that a kiln left which was killed: its lease is gone. False, with EEXIST: it
  // is something else.
  static bool removeStale(const std::string& leases, const std::string& place) {
    struct stat lease {};
    const bool stale = targetOf(place).starts_with(leases + "/") &&
                       stat(place.c_str(), &lease) != 0 && errno == ENOENT;
    if (stale && unlink(place.c_str()) == 0) return true;
    errno = EEXIST;
    return false;
  }

  Link(std::string target, std::string place)
      : target_(std::move(target)), place_(std::move(place)) {}
  std::string target_;
  std::string place_;  // empty: moved away
};

struct Options {
  std::vector<CacheOption> caches;
  std::optional<milliseconds> timeout;
  Words command;
};

Expected<Options> parseOptions(const Words& words) {
  const auto dashes = std::find(words.begin(), words.end(), "--");
  std::vector<std::string> caches;
  std::string timeout;
  CLI::App app("Run a command with caches leased for it.", "kiln run");
  app.set_help_flag();
  app.add_option("--cache", caches)->expected(1)->take_all();
  const auto* const timed = app.add_option("--timeout", timeout);
  try {
    std::vector<std::string> reversed(std::make_reverse_iterator(dashes), words.rend() - 1);
    app.parse(std::move(reversed));
  } catch (const CLI::Error& e) {
    return fail(EINVAL, std::string("run: ") + e.what());
  }
  Options options;
  for (const auto& text : caches) {
    auto cache = parseCacheOption(text);
    if (!cache) return Failure(cache.error());
    options.caches.push_back(std::move(*cache));
  }
  if (timed->count() > 0) {
    const auto duration = parseDuration(timeout);
    if (!duration) return fail(EINVAL, "run: --timeout: " + duration.error().message);
    options.timeout = *duration;
  }
  if (dashes != words.end()) options.command.assign(dashes + 1, words.end());
  if (options.caches.empty() || options.command.empty()) {
    return fail(EINVAL, "usage: kiln run --cache NAME[:DIR]... [--timeout DUR] -- CMD [ARG]...");
  }
  return options;
}

// What a refused command was about, as an Error.
Error refusal(const Answer& answer) {
  return {EIO, failureText(answer)};
}

class Leased {
 public:
  Leased(ControlFile& control, std::string mount) : control_(control), mount_(std::move(mount)) {}

  Status take(const CacheOption& cache) {
    const auto answer = control_.command({"lease", cache.name, "--discard"});
    if (!answer) return Failure(answer.error());
    if (!answer->ok) return Failure(refusal(*answer));
    leases_.push_back({cache.name, answer->text("lease")});
    if (cache.directory.empty()) return {};
    auto link =
        Link::make(mount_ + "/leases", mount_ + "/" + answer->text("path"), cache.directory);
    if (!link) return Failure(link.error());
    links_.push_back(std::move(*link));
    return {};
  }

  /// Ends all leases before anything was done in them.
  void giveBack() {
    links_.clear();
    for (const auto& lease : leases_) (void)control_.command({"release", lease.name, "--discard"});
    leases_.clear();
  }

  /// Ends all leases; false if one could not be ended in order. Says what was not published.
  bool release(bool discard) {
    links_.clear();
    bool good = true;
    for (const auto& lease : leases_) good = releaseOne(lease, discard) && good;
    leases_.clear();
    return good;
  }

 private:
  struct Lease {
    std::string cache;
    std::string name;
  };

  // The files that the command had open are closed by the kernel a moment after its end, and
  // what it left running may have more: both are waited for, the latter until a signal comes.
  bool releaseOne(const Lease& lease, bool discard) {
    milliseconds waited{0};
    while (true) {
      Words words = {"release", lease.name};
      if (discard) words.emplace_back("--discard");
      const auto answer = control_.command(words);
      if (!answer) return failed(lease, answer.error().message);
      if (answer->errnoName != "EBUSY") return report(lease, *answer, discard);
      if (waited == kPatience) {
        complain(lease.cache + ": files are still open for writing in " + lease.name +
                 "; waiting for whoever has them (Ctrl-C discards what was done)");
      }
      const int signal = HeldSignals::wait(kRetry);
      if (signal != 0 && signal != SIGCHLD) discard = true;
      waited += kRetry;
    }
  }

  static bool failed(const Lease& lease, const std::string& why) {
    complain(lease.cache + ": " + why);
    return false;
  }

  static bool report(const Lease& lease, const Answer& answer, bool discard) {
    if (!answer.ok) return failed(lease, failureText(answer));
    if (answer.text("outcome") != "discarded") return true;
    const std::string winner = answer.text("winner");
    std::string why = "the command was killed";
    if (!discard) {
      why = fmt::format("generation {} was published meanwhile{}", answer.text("generation"),
                        winner.empty() ? "" : " by " + winner);
    }
    complain(lease.cache + ": what was changed is discarded: " + why);
    return true;
  }

  ControlFile& control_;
  const std::string mount_;
  std::vector<Lease> leases_;
  std::vector<Link> links_;
};

int statusOf(const JobEnd& end) {
  if (end.timedOut) complain("the command was killed: it took longer than --timeout allows");
  return end.signal != 0 ? kSignalBase + end.signal : end.exit;
}

}  // namespace

int runJobWithCaches(const std::string& mount, const Words& words) {
  const auto options = parseOptions(words);
  if (!options) return complain(options.error().message, kExitUsage);
  auto control = ControlFile::open(mount);
  if (!control) return complain(control.error().message);
  const HeldSignals held;
  Leased leased(*control, mount);
  for (const auto& cache : options->caches) {
    if (const auto taken = leased.take(cache); !taken) {
      leased.giveBack();
      return complain(taken.error().message);
    }
  }
  setenv("KILN_MOUNT", mount.c_str(), 1);
  const auto end = runJob(options->command, options->timeout, held);
  if (!end) {
    leased.giveBack();
    return complain(end.error().message, kCannotRun);
  }
  // First of all: whoever reads what is said may let kiln wait.
  const bool good = leased.release(end->signal != 0 || end->timedOut);
  const int status = statusOf(*end);
  return good || status != 0 ? status : kExitRefused;
}

}  // namespace kilnfs
