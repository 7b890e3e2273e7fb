#include "tools/kilnfs/options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <iostream>
#include <string_view>

namespace kilnfs {
namespace {

// For mount(8), systemd and people's notes; nothing for us to do. Among them "suid" and "dev": what
// mounts for fstab adds both unless told otherwise, and trees may hold anything.
// Others are about what no FUSE file system has, or what is so anyway.
constexpr std::array kIgnored = {"rw",       "defaults", "auto",          "noauto",    "user",
                                 "nouser",   "users",    "nousers",       "owner",     "group",
                                 "_netdev",  "nofail",   "suid",          "dev",       "norelatime",
                                 "lazytime", "iversion", "nolazytime",    "mand",      "nomand",
                                 "silent",   "loud",     "nostrictatime", "noiversion"};
constexpr std::array kForFuse = {"ro",     "nodev",   "nosuid",     "exec",
                                 "noexec", "noatime", "nodiratime", "nosymfollow",
                                 "sync",   "async",   "dirsync",    "auto_unmount"};
// Also so anyway, and what each takes back: libfuse does not know all of them.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kDefaults = {
    {{"atime", "noatime"},
     {"relatime", "noatime"},
     {"diratime", "nodiratime"},
     {"symfollow", "nosymfollow"}}};

template <class List>
bool isOneOf(const List& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

template <class T>
Expected<T> number(const std::string& option, const std::string& text, int base = 10) {
  T value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value, base);
  if (error != std::errc() || stop != end || text.empty()) {
    return fail(EINVAL, "option " + option + ": '" + text + "' is not a number it can take");
  }
  return value;
}

Status setValue(const std::string& name, const std::string& value, DaemonOptions& options) {
  if (name == "mode") {
    const auto mode = parseMode(value);
    if (!mode) return Failure(mode.error());
    options.mode = *mode;
  } else if (name == "jobs") {
    const auto jobs = number<unsigned>(name, value);
    if (!jobs) return Failure(jobs.error());
    if (*jobs == 0) return fail(EINVAL, "option jobs: at least 1 build must be able to run");
    options.jobs = *jobs;
  } else if (name == "control_mode") {
    const auto mode = number<unsigned>(name, value, 8);
    if (!mode) return Failure(mode.error());
    if (*mode > 0777)
      return fail(EINVAL, "option control_mode: '" + value + "' is not an octal mode");
    options.controlMode = *mode;
  } else if (name == "control_gid") {
    const auto gid = number<gid_t>(name, value);
    if (!gid) return Failure(gid.error());
    options.controlGid = *gid;
  } else if (name == "linger") {
    const auto seconds = number<unsigned>(name, value);
    if (!seconds) return Failure(seconds.error());
    options.linger = std::chrono::seconds(*seconds);
  } else if (name == "fault") {
    options.fault = value;
  } else if (name == "workers") {
    const auto workers = number<unsigned>(name, value);
    if (!workers || *workers == 0) return fail(EINVAL, "option workers: a number");
    options.workers = *workers;
  } else if (name == "max_used") {
    const auto size = parseSize(value);
    if (!size) return fail(EINVAL, "option max_used: " + size.error().message);
    options.limits.maxUsed = *size;
  } else if (name == "min_free") {
    const auto portion = parsePortion(value);
    if (!portion) return fail(EINVAL, "option min_free: " + portion.error().message);
    options.limits.minFree = *portion;
  } else if (name == "context" || name == "fscontext" || name == "defcontext" ||
             name == "rootcontext") {
    options.forFuse.push_back(name + "=" + value);
  } else {
    return fail(EINVAL, "unknown option '" + name + "='; kilnfs --help lists those there are");
  }
  return {};
}

Status setOption(const std::string& word, DaemonOptions& options) {
  if (word.empty() || word.starts_with("x-") || word.starts_with("X-") ||
      word.starts_with("comment=") || isOneOf(kIgnored, word)) {
    return {};
  }
  if (const size_t equals = word.find('='); equals != std::string::npos) {
    return setValue(word.substr(0, equals), word.substr(equals + 1), options);
  }
  for (const auto& [usual, other] : kDefaults) {
    if (word != usual) continue;
    std::erase(options.forFuse, other);
    return {};
  }
  if (word == "allow_other") {
    options.allowOther = true;
  } else if (word == "no_allow_other") {
    options.allowOther = false;
  } else if (word == "no_overlay") {
    options.overlay = false;
  } else if (word == "debug") {
    options.debug = options.foreground = true;
  } else if (isOneOf(kForFuse, word)) {
    options.forFuse.push_back(word);
  } else if (word == "strictatime") {
    return fail(EINVAL, "option strictatime: libfuse can't have the kernel mount so; leave it out");
  } else {
    return fail(EINVAL, "unknown option '" + word + "'; kilnfs --help lists those there are");
  }
  return {};
}

constexpr const char* kFooter = R"(
Options for -o, separated by commas:
  mode=copy|hardlink       how snapshots share space; fixed when the store is made
  jobs=N                   builds that run at a time (default: the number of processors)
  control_mode=MODE        who may write to control (default: 0600)
  control_gid=GID          its group
  no_overlay               builds through the mount, not past it at native speed
  linger=SECONDS           how long an interactive shell keeps a lease it left (default: 2)
  max_used=SIZE            results that are not used go when all take more (10G, 500M)
  min_free=SIZE|PCT        results that are not used go when less is free (20G, 10%)
  allow_other              let other users see the mount (default if root mounts it)
  no_allow_other           do not
  and those of mount(8); a mount is always nosuid and nodev)";

}  // namespace

Status parseMountOptions(const std::string& list, DaemonOptions& options) {
  size_t begin = 0;
  while (begin <= list.size()) {
    const size_t end = std::min(list.find(',', begin), list.size());
    if (auto set = setOption(list.substr(begin, end - begin), options); !set) return set;
    begin = end + 1;
  }
  return {};
}

tl::expected<DaemonOptions, int> parseCommandLine(int argc, char** argv) {
  DaemonOptions options;
  std::vector<std::string> lists;
  CLI::App app("Mount the build store STORE as a file tree at MNT.", "kilnfs");
  app.set_help_flag("-h,--help", "Print this help");
  app.set_version_flag("-V,--version", std::string("kilnfs ") + KILNFS_VERSION);
  app.add_option("STORE", options.store, "The store's directory; made if it does not exist")
      ->required();
  app.add_option("MNT", options.mount, "An empty directory")->required();
  app.add_flag("-f,--foreground", options.foreground, "Stay in the foreground, log to stderr");
  app.add_flag("-d,--debug", options.debug, "As -f, and log every request");
  // As often as wanted, and also after STORE and MNT, as mount(8) passes it.
  app.add_option("-o", lists, "Options, see below")->take_all()->allow_extra_args(false);
  app.footer(kFooter);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return tl::unexpected(app.exit(e));
    std::cerr << "kilnfs: " << e.what() << "; kilnfs --help says how to call it\n";
    return tl::unexpected(2);
  }
  if (options.debug) options.foreground = true;
  for (const std::string& list : lists) {
    if (auto set = parseMountOptions(list, options); !set) {
      std::cerr << "kilnfs: " << set.error().message << "\n";
      return tl::unexpected(2);
    }
  }
  return options;
}

}  // namespace kilnfs
