#include "store/build/attempt.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <system_error>
#include <thread>

namespace kilnfs {
namespace {

/// The error of a build whose command, or a copy before it, ended like this.
Failure failureOf(const std::string& what, const Supervised::End& end) {
  int code = end.timedOut      ? ETIMEDOUT
             : end.interrupted ? ECANCELED
             : end.error       ? end.error->code
                               : EIO;
  // Of the store that would mean that the result is there.
  if (code == EEXIST) code = EIO;
  return fail(code, fmt::format("{} {}", what, describe(end)));
}

}  // namespace

Attempt::Attempt(Context context, const Id& id, const BuildRequest& request, const Requester& who,
                 const Account& account, Interrupt& stop,
                 std::function<void(std::shared_ptr<Workspace>)> show)
    : context_(context),
      id_(id),
      request_(request),
      who_(who),
      account_(account),
      stop_(stop),
      show_(std::move(show)) {}

Status Attempt::begin() {
  auto log = context_.store.createLog(id_);
  if (!log) return Failure(log.error());
  log_ = std::move(*log);
  return {};
}

Status Attempt::run() {
  if (request_.timeout) deadline_ = Supervised::Clock::now() + *request_.timeout;
  Status done = context_.makeRoom();
  if (done) {
    done = context_.store.build(
        id_, request_.base, User{account_.uid, account_.gid}, stop_,
        [this](const std::shared_ptr<Workspace>& tmpdir) { return inTmpdir(tmpdir); });
  }
  if (done) return done;
  // Somebody else made it meanwhile: it is what was asked for.
  if (done.error().code == EEXIST && context_.store.storesResult(id_).value_or(false)) return {};
  if (stop_.raised()) done = fail(ECANCELED, "the build was cancelled");
  explain(textOf(done.error()));
  return done;
}

Status Attempt::inTmpdir(const std::shared_ptr<Workspace>& tmpdir) {
  const std::string& mount = context_.options.mount;
  dir_ = mount.empty() ? tmpdir->path() : fmt::format("{}/builds/{}", mount, id_.str());
  tmpdir_ = tmpdir;
  tmpdir->noticeWrites();
  show_(tmpdir);
  Status done;
  for (const BuildRequest::Copy& copy : request_.copies) {
    if (done) done = copySource(copy);
  }
  if (done) done = checkSources();
  if (done) done = takeCaches();
  if (done) done = runCommand();
  // A command that was killed may have left half-written files in its caches.
  releaseCaches(!end_ || !end_->exit || end_->interrupted || end_->timedOut);
  show_(nullptr);
  if (done) done = lostWrites();
  tmpdir_.reset();
  return done;
}

/// A build whose tmpdir lost data must not succeed, even if its command ignores the error. What is
/// written past the mount, nobody tells us of: that the file system is full at the end is what can
/// be seen, and what an overlay has noted.
Status Attempt::lostWrites() const {
  int code = tmpdir_->writeError();
  if (tmpdir_->native()) {
    constexpr uint64_t kFull = 1 << 20;
    const auto root = tmpdir_->open("", O_RDONLY | O_DIRECTORY);
    struct statvfs space = {};
    if (!root || ::fstatvfs(root->get(), &space) != 0) return failErrno("look at the tmpdir");
    // An overlay writes with the daemon's rights, so it may use what is kept for root.
    const bool reserve = account_.uid == 0 || tmpdir_->native()->space;
    const uint64_t free = uint64_t{reserve ? space.f_bfree : space.f_bavail} * space.f_frsize;
    const bool full = free < kFull || (space.f_files != 0 && space.f_favail == 0);
    if (code == 0 && full) code = ENOSPC;
    // Syncs nothing, being volatile, but tells of an error in writing back.
    if (code == 0 && tmpdir_->native()->space && ::syncfs(root->get()) != 0) code = errno;
  }
  if (code == 0) return {};
  return fail(code, fmt::format("a write in the build's directory failed: {}", errnoText(code)));
}

Supervised::Spec Attempt::spec() const {
  Supervised::Spec out;
  out.grace = context_.options.grace;
  out.account = account_;
  out.dir = dir_;
  if (const auto& native = tmpdir_->native()) {
    out.bind = native->path;
    if (native->space) out.namespaceFd = native->space->get();
  }
  out.outputFd = log_.get();
  out.env = cleanEnvironment(account_, {});
  return out;
}

Status Attempt::copySource(const BuildRequest::Copy& copy) {
  auto source = Sources::resolve(copy.source, who_);
  if (!source) return Failure(source.error());
  auto directory = context_.sources.isDirectory(*source, account_);
  if (!directory) return Failure(directory.error());
  Supervised::Spec rsync = spec();
  rsync.argv = {"rsync", "-aHAXS", "--numeric-ids", "--"};
  if (*directory) {
    rsync.below = copy.destination;
    rsync.argv.insert(rsync.argv.end(), {*source + "/", "./"});
  } else {
    const bool into = copy.destination.empty() || copy.destination.ends_with('/');
    const size_t slash = copy.destination.rfind('/');
    if (slash != std::string::npos) rsync.below = copy.destination.substr(0, slash);
    rsync.plain = into ? std::filesystem::path(*source).lexically_normal().filename().string()
                       : copy.destination.substr(slash + 1);  // npos + 1 is 0
    rsync.argv.insert(rsync.argv.end(), {*source, "./" + rsync.plain});
  }
  auto started = Supervised::start(context_.supervisors, rsync);
  if (!started) return Failure(started.error());
  const Supervised::End end = started->run(stop_, deadline_);
  if (end.ok()) return {};
  // The end of a copy is not the command's: it has no exit status of its own.
  if (end.timedOut) end_ = Supervised::End{{}, {}, false, true, {}};
  return failureOf(fmt::format("copying {}", inQuotes(copy.source)), end);
}

/// Under an id that is the hash of one content no other may be stored, which would be served for it
/// for good. The copies can't be hashed instead: they may lie among other files.
Status Attempt::checkSources() const {
  if (!context_.idIsHash || request_.copies.empty()) return {};
  const auto now = context_.sources.automaticId(request_, who_, account_, stop_);
  if (!now) return Failure(now.error());
  if (*now == id_) return {};
  return fail(EAGAIN, "what is copied has changed since the build was asked for: ask again");
}

Requester Attempt::owner() const {
  Requester out = who_;
  out.uid = account_.uid;
  out.gid = account_.gid;
  out.groups = account_.groups;
  return out;
}

Status Attempt::takeCaches() {
  std::map<CacheName, std::string> targets;  // one lease for each cache, however many links
  for (const BuildRequest::Cache& cache : request_.caches) {
    std::string& target = targets[cache.name];
    if (target.empty()) {
      auto lease = context_.leases.forBuild(cache.name, owner(), id_);
      if (!lease) return Failure(lease.error());
      leases_.push_back(lease->lease);
      target = fmt::format("{}/leases/{}", context_.options.mount, lease->lease);
      if (context_.options.mount.empty()) {
        auto workspace = context_.leases.workspace(lease->lease, account_.uid);
        if (!workspace) return Failure(workspace.error());
        (*workspace)->markChanged();  // behind the back of whoever counts changes
        target = (*workspace)->path();
      }
    }
    links_.push_back({cache.destination.empty() ? cache.name.str() : cache.destination, target});
  }
  return {};
}

Status Attempt::runCommand() {
  Supervised::Spec command = spec();
  command.argv = request_.argv;
  std::vector<std::string> extra = {"KILN_MOUNT=" + context_.options.mount,
                                    "KILN_BUILD_ID=" + id_.str()};
  extra.insert(extra.end(), request_.env.begin(), request_.env.end());
  command.env = cleanEnvironment(account_, extra);
  for (const Link& link : links_) command.links.emplace_back(link.path, link.target);
  auto started = Supervised::start(context_.supervisors, command);
  if (!started) return Failure(started.error());
  for (const std::string& lease : leases_) context_.leases.bindProcess(lease, started->pid());
  end_ = started->run(stop_, deadline_);
  if (end_->ok()) return {};
  return failureOf("the command", *end_);
}

void Attempt::releaseCaches(bool discard) {
  // The kernel tells of the last close of a file some time after the process has gone.
  constexpr std::chrono::milliseconds kPause{10};
  constexpr int kTries = 500;
  for (const std::string& lease : leases_) {
    auto released = context_.leases.release(lease, account_.uid, discard);
    for (int i = 0; i < kTries && !released && released.error().code == EBUSY; ++i) {
      std::this_thread::sleep_for(kPause);
      released = context_.leases.release(lease, account_.uid, discard);
    }
    if (!released && released.error().code == EBUSY) {
      spdlog::warn("{}: {} is still written to by somebody and is discarded", id_.str(), lease);
      released = context_.leases.release(lease, account_.uid, true);
    }
    if (!released) spdlog::warn("{}: release {}: {}", id_.str(), lease, released.error().message);
  }
  leases_.clear();
}

void Attempt::explain(const std::string& reason) {
  std::string line = fmt::format("kilnfs: {}\n", reason);
  const auto path = context_.store.logFile(id_);
  const UniqueFd reader(path ? ::open(path->c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1);
  struct stat st = {};
  char last = '\n';
  if (reader.valid() && ::fstat(reader.get(), &st) == 0 && st.st_size > 0 &&
      ::pread(reader.get(), &last, 1, st.st_size - 1) == 1 && last != '\n') {
    line.insert(0, "\n");
  }
  if (::write(log_.get(), line.data(), line.size()) < 0) {
    spdlog::warn("{}: the log can't be completed: {}", id_.str(), errnoText(errno));
  }
}

}  // namespace kilnfs
