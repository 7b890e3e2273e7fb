#include "store/durability.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "store/base/name.h"

namespace kilnfs {
namespace {

constexpr const char* kSession = "session";
constexpr const char* kRunning = "running";
constexpr const char* kClean = "clean";
constexpr const char* kLost = "lost";  // a sync has failed: as bad as a crash

const char* kindName(TreeKind kind) {
  return kind == TreeKind::result ? "result" : "cache";
}

std::string markName(TreeKind kind, const std::string& name) {
  return fmt::format("{}.{}", kindName(kind), name);
}

/// The first line of a small file, without trailing spaces; empty if there is no such file.
Expected<std::string> lineOf(int dirFd, const char* name) {
  const UniqueFd fd(::openat(dirFd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid() && errno == ENOENT) return std::string();
  char text[256];
  const ssize_t n = fd.valid() ? ::read(fd.get(), text, sizeof text) : -1;
  if (n < 0) return failErrno(fmt::format("read {}", name));
  const std::string line(text, static_cast<size_t>(n));
  return line.substr(0, line.find_last_not_of(' ', line.find('\n') - 1) + 1);
}

}  // namespace

Durability::~Durability() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  if (!began_) return;
  auto ok = sync();
  if (!lost_) ok = writeSession(kClean);
  if (!ok) spdlog::error("{}", ok.error().message);
}

const Area& Durability::areaOf(TreeKind kind) const {
  return kind == TreeKind::result ? layout_.result() : layout_.cache();
}

Status Durability::open() {
  // Without /proc there is no telling a crash of the machine from one of the daemon: it may have
  // been the former.
  boot_ = lineOf(AT_FDCWD, "/proc/sys/kernel/random/boot_id").value_or("");
  if (auto ok = openDirectory(); !ok) return ok;
  return readSession();
}

Status Durability::openDirectory() {
  const Area& state = layout_.state();
  if (::mkdirat(state.fd.get(), "synced", 0755) != 0 && errno != EEXIST) {
    return failErrno(fmt::format("make {}/synced", state.path));
  }
  marks_.path = state.path + "/synced";
  marks_.fd.reset(
      ::openat(state.fd.get(), "synced", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!marks_.fd.valid()) return failErrno("open " + marks_.path);
  return {};
}

Status Durability::readSession() {
  auto last = lineOf(marks_.fd.get(), kSession);
  if (!last) return Failure(last.error());
  if (last->empty()) return {};  // the first time here: what is there is somebody else's
  const std::string running = fmt::format("{} {}", boot_, kRunning);
  crashed_ = !last->ends_with(kClean) && (boot_.empty() || *last != running);
  if (crashed_) spdlog::warn("recovery: the machine has crashed, or lost power");
  return {};
}

// In place, always of one length: that needs no space, so a store on a full disk can be opened.
Status Durability::writeSession(const char* state) {
  const std::string text = fmt::format("{:<62}\n", fmt::format("{} {}", boot_, state));
  const UniqueFd fd(
      ::openat(marks_.fd.get(), kSession, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!fd.valid() ||
      ::pwrite(fd.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()) ||
      ::fsync(fd.get()) != 0 || ::fsync(marks_.fd.get()) != 0) {
    return failErrno(fmt::format("write {}/{}", marks_.path, kSession));
  }
  return {};
}

Expected<bool> Durability::isMarked(TreeKind kind, const std::string& name) const {
  const std::string mark = markName(kind, name);
  if (::faccessat(marks_.fd.get(), mark.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) return true;
  if (errno == ENOENT) return false;
  return failErrno(fmt::format("look at {}/{}", marks_.path, mark));
}

Status Durability::mark(const Tree& tree) const {
  const std::string name = markName(tree.first, tree.second);
  const UniqueFd fd(
      ::openat(marks_.fd.get(), name.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!fd.valid()) return failErrno(fmt::format("make {}/{}", marks_.path, name));
  return {};
}

Expected<std::vector<Durability::Tree>> Durability::unmarked(
    const std::set<std::string>& sealed) const {
  std::vector<Tree> found;
  for (const std::string& id : sealed) {
    if (!marked(TreeKind::result, id)) found.emplace_back(TreeKind::result, id);
  }
  for (const TreeKind kind : {TreeKind::result, TreeKind::cache}) {
    auto names = listNames(areaOf(kind));
    if (!names) return Failure(names.error());
    for (const std::string& name : *names) {
      if (Name::valid(name) && !marked(kind, name)) found.emplace_back(kind, name);
    }
  }
  return found;
}

/// Marks of trees that are gone, which must not vouch for a later tree of that name.
Status Durability::dropStaleMarks(const std::set<std::string>& sealed) {
  auto names = listNames(marks_);
  if (!names) return Failure(names.error());
  for (const std::string& name : *names) {
    for (const TreeKind kind : {TreeKind::result, TreeKind::cache}) {
      const std::string prefix = markName(kind, "");
      if (!name.starts_with(prefix)) continue;
      const std::string tree = name.substr(prefix.size());
      if (isDirectory(areaOf(kind), tree)) continue;
      if (kind == TreeKind::result && sealed.count(tree) != 0) continue;
      ::unlinkat(marks_.fd.get(), name.c_str(), 0);
    }
  }
  return {};
}

Status Durability::begin(const std::set<std::string>& sealed) {
  if (auto ok = dropStaleMarks(sealed); !ok) return ok;
  auto others = unmarked(sealed);
  if (!others) return Failure(others.error());
  {
    const std::lock_guard lock(mutex_);
    pending_.insert(others->begin(), others->end());
  }
  if (auto ok = sync(); !ok) {
    if (lost_) return ok;
    // No room for a mark: the store must open all the same, so that something can be deleted.
    spdlog::warn("{}: it is tried again", ok.error().message);
  }
  if (auto ok = writeSession(kRunning); !ok) return ok;
  began_ = true;
  thread_ = std::thread([this] { threadMain(); });
  return {};
}

Status Durability::changing(TreeKind kind, const std::string& name) {
  const std::lock_guard lock(mutex_);
  pending_.erase({kind, name});
  inFlight_.erase({kind, name});
  const std::string file = markName(kind, name);
  if (::unlinkat(marks_.fd.get(), file.c_str(), 0) != 0 && errno != ENOENT) {
    return failErrno(fmt::format("delete {}/{}", marks_.path, file));
  }
  return {};
}

void Durability::committed(TreeKind kind, const std::string& name) {
  const std::lock_guard lock(mutex_);
  pending_.insert({kind, name});
  wake_.notify_all();
}

Status Durability::sync() {
  std::unique_lock lock(mutex_);
  return syncLocked(lock);
}

Status Durability::flush() {
  std::unique_lock lock(mutex_);
  (void)syncLocked(lock, true);  // that somebody's mark could not be made is not the caller's
  if (lost_) return fail(EIO, "a sync has failed");
  return {};
}

Status Durability::syncLocked(std::unique_lock<std::mutex>& lock, bool evenIfNothing) {
  wake_.wait(lock, [this] { return !syncing_; });
  if (pending_.empty() && !evenIfNothing) return {};
  syncing_ = true;
  inFlight_.swap(pending_);
  lock.unlock();
  Status ok;
  if (::syncfs(layout_.result().fd.get()) != 0) ok = failErrno("sync " + layout_.root());
  lock.lock();
  // What was not written is not tried again: the kernel has forgotten that it failed, and the next
  // sync would seem to succeed.
  if (!ok && !lost_) {
    lost_ = true;
    (void)writeSession(kLost);  // if that can be written
  }
  for (const Tree& tree : inFlight_) {
    if (lost_) break;
    if (auto marked = mark(tree); !marked) {
      ok = marked;
      pending_.insert(tree);
    }
  }
  inFlight_.clear();
  syncing_ = false;
  wake_.notify_all();
  return ok;
}

void Durability::threadMain() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !pending_.empty(); });
    // Others that commit meanwhile share the sync.
    if (wake_.wait_for(lock, every_, [this] { return stopping_; })) return;
    if (auto ok = syncLocked(lock); !ok) {
      spdlog::error("{}: what was committed last may not survive a crash of the machine",
                    ok.error().message);
    }
  }
}

}  // namespace kilnfs
