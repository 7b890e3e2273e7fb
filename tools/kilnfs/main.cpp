// The daemon: kilnfs STORE MNT. It wires the store's parts to a mount and sees to an orderly end.

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/ringbuffer_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <climits>
#include <thread>

#include "fs/session.h"
#include "store/base/fault.h"
#include "store/base/mountinfo.h"
#include "store/base/standard_fds.h"
#include "store/build/builds.h"
#include "store/control/control.h"
#include "store/leases.h"
#include "store/store.h"
#include "store/tree/identity.h"
#include "tools/kilnfs/background.h"
#include "tools/kilnfs/capabilities.h"
#include "tools/kilnfs/mountpoint.h"
#include "tools/kilnfs/options.h"

namespace kilnfs {
namespace {

// How long those who have something open in the mount get to close it, when we are told to end.
constexpr int kGraceMs = 2000;

int complain(const Error& error) {
  fmt::print(stderr, "kilnfs: {}\n", error.message.empty() ? errnoName(error.code) : error.message);
  return 1;
}

// Open files of the tree's users are open files of ours.
void raiseFileLimit() {
  struct rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// Blocked before threads are made, so that they all inherit it and only the signalfd sees them.
sigset_t blockSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set, signal);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return set;
}

using LogSink = std::shared_ptr<spdlog::sinks::sink>;

void logTo(const DaemonOptions& options, LogSink sink) {
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("kilnfs", std::move(sink)));
  spdlog::set_level(options.debug ? spdlog::level::debug : spdlog::level::info);
  spdlog::flush_on(spdlog::level::info);
}

// The log file is in the store, which has to be opened, and recovered, first: until then what is
// logged is kept.
class EarlyLog {
 public:
  explicit EarlyLog(const DaemonOptions& options) : options_(options) {
    if (options.foreground) {
      logTo(options, std::make_shared<spdlog::sinks::stderr_sink_mt>());
    } else {
      logTo(options, kept_);
    }
  }
  void moveTo(const std::string& stateDir) {
    if (options_.foreground) return;
    try {
      const auto file =
          std::make_shared<spdlog::sinks::basic_file_sink_mt>(stateDir + "/kilnfs.log");
      logTo(options_, file);
      for (const auto& message : kept_->last_raw()) file->log(message);
      file->flush();
    } catch (const spdlog::spdlog_ex& e) {
      fmt::print(stderr, "kilnfs: no log file: {}\n", e.what());
    }
  }

 private:
  static constexpr size_t kKept = 10000;
  const DaemonOptions& options_;
  const std::shared_ptr<spdlog::sinks::ringbuffer_sink_mt> kept_ =
      std::make_shared<spdlog::sinks::ringbuffer_sink_mt>(kKept);
};

std::string findSupervisor() {
  std::string self(PATH_MAX, '\0');
  const ssize_t n = ::readlink("/proc/self/exe", self.data(), self.size());
  if (n <= 0) return "kiln-supervise";
  self.resize(static_cast<size_t>(n));
  const std::string directory = self.substr(0, self.rfind('/'));
  for (const char* place : {"/kiln-supervise", "/../libexec/kilnfs/kiln-supervise"}) {
    if (::access((directory + place).c_str(), X_OK) == 0) return directory + place;
  }
  return "kiln-supervise";
}

// Waits for a signal on a thread of its own, then ends builds and session while the mount still
// serves them. Also looks whether the mount is there: the mount namespaces of builds hold on to it
// after it was unmounted, so that the kernel does not tell us before they have ended.
class Stopper {
 public:
  Stopper(const sigset_t& signals, std::string mountpoint, Session& session, Builds& builds)
      : mountpoint_(std::move(mountpoint)),
        signals_(::signalfd(-1, &signals, SFD_CLOEXEC)),
        end_(::eventfd(0, EFD_CLOEXEC)),
        thread_([this, &session, &builds] { run(session, builds); }) {}
  ~Stopper() {
    const uint64_t one = 1;
    if (::write(end_.get(), &one, sizeof one) < 0) spdlog::error("eventfd: {}", errno);
    thread_.join();
  }

 private:
  void run(Session& session, Builds& builds) {
    struct pollfd fds[3] = {
        {signals_.get(), POLLIN, 0}, {end_.get(), POLLIN, 0}, {mounts_.get(), POLLPRI, 0}};
    while (fds[0].revents == 0 && fds[1].revents == 0) {
      if (::poll(fds, 3, -1) < 0) continue;
      if (fds[2].revents == 0 || isMounted("fuse.kilnfs", mountpoint_)) continue;
      spdlog::info("unmounted: cancelling builds");
      builds.stop();
      fds[2].fd = -1;
    }
    if (fds[0].revents == 0) return;
    spdlog::info("told to end: cancelling builds, publishing leases");
    builds.stop();
    session.stop(kGraceMs);
  }

  const std::string mountpoint_;
  const UniqueFd signals_;
  const UniqueFd end_;
  const UniqueFd mounts_{::open("/proc/self/mounts", O_RDONLY | O_CLOEXEC)};
  std::thread thread_;  // last: it uses the others
};

MountOptions mountOptions(const DaemonOptions& options) {
  MountOptions mount;
  mount.mountpoint = options.mount;
  mount.source = options.store;
  mount.debug = options.debug;
  mount.uid = ::geteuid();
  mount.gid = ::getegid();
  mount.controlMode = options.controlMode;
  mount.controlGid = options.controlGid.value_or(mount.gid);
  // Trees may hold set-id files and devices of root file systems: kept, not acted on.
  mount.fuseOptions = {"nosuid", "nodev"};
  mount.fuseOptions.insert(mount.fuseOptions.end(), options.forFuse.begin(), options.forFuse.end());
  if (options.allowOther.value_or(mount.uid == 0)) mount.fuseOptions.emplace_back("allow_other");
  return mount;
}

int serve(const DaemonOptions& options, const sigset_t& signals, Background background) {
  EarlyLog early(options);
  auto store = Store::create(options.store, {.mode = options.mode,
                                             .mount = options.mount,
                                             .plainWorkspaces = false,
                                             .nativeBuilds = options.overlay,
                                             .limits = options.limits});
  if (!store) return complain(store.error());
  early.moveTo((*store)->stateDir());
  const auto leases = Leases::create(**store, {options.linger, Leases::Options{}.poll});
  Builds::Options buildOptions;
  buildOptions.jobs = options.jobs;
  buildOptions.mount = options.mount;
  buildOptions.supervisor = findSupervisor();
  MountOptions mount = mountOptions(options);
  mount.guard = buildOptions.supervisor;
  if (options.workers) mount.workers = *options.workers;
  const auto builds = Builds::create(**store, *leases, buildOptions);
  const auto control = Control::create(**store, *leases, *builds);
  int status = 0;
  {
    auto session =
        Session::create({store->get(), leases.get(), builds.get(), control.get()}, mount);
    if (!session) return complain(session.error());
    const Stopper stopper(signals, options.mount, **session, *builds);
    spdlog::info("{} is mounted at {}", options.store, options.mount);
    const auto served = (*session)->serve([&background] { background.ready(); });
    if (!served) {
      spdlog::error("{}", served.error().message);
      status = complain(served.error());
    }
    // After an unmount: nobody can see the builds any more.
    builds->stop();
  }
  spdlog::info("{} is unmounted", options.mount);
  return status;
}

int run(int argc, char** argv) {
  auto options = parseCommandLine(argc, argv);
  if (!options) return options.error();
  const auto mountpoint = prepareMountpoint(options->mount);
  if (!mountpoint) return complain(mountpoint.error());
  const auto store = resolveStore(options->store, *mountpoint);
  if (!store) return complain(store.error());
  options->mount = *mountpoint;
  options->store = *store;

  Background background;
  if (!options->foreground) background = goToBackground(options->mount);
  if (::chdir("/") != 0) return complain({errno, "cannot change to /"});
  rememberProcessUmask();
  raiseFileLimit();
  if (const auto dropped = dropCapabilities(); !dropped) return complain(dropped.error());
  if (!options->fault.empty()) armFault(options->fault);
  return serve(*options, blockSignals(), std::move(background));
}

}  // namespace
}  // namespace kilnfs

int main(int argc, char** argv) {
  if (!kilnfs::holdStandardFds()) return 1;
  ::signal(SIGCHLD, SIG_DFL);  // else, if our parent ignores it, we never know how a command ended
  try {
    return kilnfs::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "kilnfs: {}\n", e.what());
    return 1;
  }
}
