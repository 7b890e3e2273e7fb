#include "store/manifests.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/ioprio.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <unordered_set>

#include "store/known_content.h"

namespace kilnfs {
namespace {

/// The calling thread gives way to all others, for the processor and the disk.
void runInBackground() {
  constexpr int kLowest = 19;
  const auto thread = static_cast<id_t>(::gettid());
  ::setpriority(PRIO_PROCESS, thread, kLowest);
  ::syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}

bool sameFile(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

}  // namespace

Manifests::Manifests(const Layout& layout, Database& database)
    : layout_(layout), database_(database), thread_([this] { threadMain(); }) {}

Manifests::~Manifests() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.raise();
  wake_.notify_all();
  thread_.join();
}

std::string Manifests::path(const Id& id) const {
  return layout_.state().path + "/manifest/" + id.str();
}

Status Manifests::resume() {
  const std::string directory = layout_.state().path + "/manifest";
  if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) {
    return failErrno("make " + directory);
  }
  Area area{UniqueFd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), directory};
  if (!area.fd.valid()) return failErrno("open " + directory);
  auto names = listNames(area);
  if (!names) return Failure(names.error());
  std::unordered_set<std::string> recorded;
  for (std::string& name : *names) {
    // What can't be looked at now is not gone: its record is all that tells of damage later.
    if (Name::valid(name) && hasDirectory(layout_.result(), name).value_or(true)) {
      recorded.insert(std::move(name));
    } else {
      ::unlinkat(area.fd.get(), name.c_str(), 0);
    }
  }
  auto rows = database_.builds();
  if (!rows) return Failure(rows.error());
  for (const BuildRow& row : *rows) {
    if (!row.ours || recorded.count(row.id) != 0) continue;
    if (auto id = Id::parse(row.id, "id")) recordLater(*id);
  }
  return {};
}

void Manifests::recordLater(const Id& id) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(id);
  }
  wake_.notify_all();
}

size_t Manifests::pending() const {
  const std::lock_guard lock(mutex_);
  return queue_.size() + (busy_ ? 1 : 0);
}

Status Manifests::drain(Interrupt& interrupt) {
  constexpr std::chrono::milliseconds kLook{50};
  std::unique_lock lock(mutex_);
  while (!queue_.empty() || busy_) {
    if (interrupt.raised()) return fail(EINTR, "interrupted");
    idle_.wait_for(lock, kLook);
  }
  return {};
}

void Manifests::threadMain() {
  runInBackground();
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const Id id = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    // One that is there is of this result: it goes with the result.
    const bool there = ::access(path(id).c_str(), F_OK) == 0;
    const Status done = there ? Status() : record(id, stop_);
    if (!done && done.error().code != ENOENT && done.error().code != EINTR) {
      spdlog::warn("{} is not recorded for verify: {}", id.str(), done.error().message);
    }
    lock.lock();
    busy_ = false;
    if (queue_.empty()) idle_.notify_all();
  }
}

Expected<UniqueFd> Manifests::openResult(const Id& id) const {
  UniqueFd fd(::openat(layout_.result().fd.get(), id.str().c_str(),
                       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return failErrno(fmt::format("result {}", id.str()));
  return fd;
}

Status Manifests::record(const Id& id, Interrupt& interrupt) {
  auto root = openResult(id);
  if (!root) return Failure(root.error());
  struct stat st = {};
  if (::fstat(root->get(), &st) != 0) return failErrno("stat " + id.str());
  // Held to the end, so that no other directory can have its inode number.
  const UniqueFd held(::openat(root->get(), ".", O_PATH | O_CLOEXEC));
  auto row = database_.build(id.str());
  if (!row) return Failure(row.error());
  std::string tmp;
  {
    const std::lock_guard lock(mutex_);
    tmp = fmt::format("manifest/.{}", next_++);
  }
  UniqueFd out(::openat(layout_.state().fd.get(), tmp.c_str(),
                        O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!out.valid()) return failErrno(fmt::format("make {}/{}", layout_.state().path, tmp));
  ManifestWriter writer(std::move(out), *row ? (*row)->created : 0, ::time(nullptr));
  Describer describer;
  // Shared, since a function has to be copyable.
  std::shared_ptr<KnownContent> known;
  const auto base = *row && (*row)->parent ? Id::parse(*(*row)->parent) : fail(ENOENT);
  if (base) {
    auto directory = openResult(*base);
    auto manifest = ManifestReader::open(path(*base));
    if (directory && manifest) {
      known = std::make_shared<KnownContent>(std::move(*directory), std::move(*manifest));
      describer.setKnown([known](const std::string& path, const struct stat& file) {
        return file.st_nlink > 1 ? known->of(path, file) : std::nullopt;
      });
    }
  }
  auto usage = walk(id, std::move(*root), describer, &writer, interrupt);
  Status done = usage ? writer.finish() : Status(Failure(usage.error()));
  if (done) done = commit(id, tmp, st);
  if (done) done = database_.setUsage(id.str(), *usage);
  if (!done) ::unlinkat(layout_.state().fd.get(), tmp.c_str(), 0);
  return done;
}

Expected<Usage> Manifests::measure(const Id& id, Interrupt& interrupt) {
  auto root = openResult(id);
  if (!root) return Failure(root.error());
  Describer describer;
  describer.setKnown([](const std::string&, const struct stat&) { return std::string("?"); });
  auto usage = walk(id, std::move(*root), describer, nullptr, interrupt);
  if (!usage) return usage;
  if (auto ok = database_.setUsage(id.str(), *usage); !ok) return Failure(ok.error());
  return usage;
}

Expected<Usage> Manifests::walk(const Id& id, UniqueFd root, Describer& describer,
                                ManifestWriter* writer, Interrupt& interrupt) {
  TreeWalk tree(std::move(root));
  TreeWalk::Item item;
  for (;;) {
    auto more = tree.next(item);
    if (!more) return Failure(more.error());
    if (!*more) break;
    auto entry = describer.describe(item, tree.path(), interrupt);
    if (!entry) return Failure(entry.error());
    if (writer != nullptr) writer->add(*entry);
  }
  auto row = database_.build(id.str());
  return usageOf(describer, row && *row ? (*row)->parent : std::nullopt);
}

Usage Manifests::usageOf(const Describer& describer,
                         const std::optional<std::string>& parent) const {
  Usage usage{describer.bytes(), describer.entries()};
  std::vector<std::pair<BackingId, uint64_t>> elsewhere;
  for (const auto& [file, linked] : describer.linked()) {
    usage.inodes -= linked.inTree - 1;
    if (linked.onDisk > linked.inTree) elsewhere.emplace_back(file, linked.bytes);
  }
  const auto base = parent ? Id::parse(*parent) : fail(ENOENT);
  if (elsewhere.empty() || !base) return usage;
  auto root = openResult(*base);
  if (!root) return usage;
  // Shared with the base, or with what was built on this one meanwhile?
  std::unordered_set<BackingId, HashBackingId> theirs;
  TreeWalk tree(std::move(*root));
  TreeWalk::Item item;
  for (auto more = tree.next(item); more && *more; more = tree.next(item)) {
    if (!item.leaves && !S_ISDIR(item.attributes.st_mode) && item.attributes.st_nlink > 1) {
      theirs.insert(backingId(item.attributes));
    }
  }
  for (const auto& [file, bytes] : elsewhere) {
    if (theirs.count(file) == 0) continue;
    usage.bytes -= bytes;
    --usage.inodes;
  }
  return usage;
}

Status Manifests::commit(const Id& id, const std::string& tmp, const struct stat& root) {
  const std::lock_guard lock(commitMutex_);
  struct stat now = {};
  if (::fstatat(layout_.result().fd.get(), id.str().c_str(), &now, AT_SYMLINK_NOFOLLOW) != 0 ||
      !sameFile(now, root)) {
    return fail(ENOENT, fmt::format("{} was deleted meanwhile", id.str()));
  }
  const int state = layout_.state().fd.get();
  if (::renameat(state, tmp.c_str(), state, ("manifest/" + id.str()).c_str()) != 0) {
    return failErrno("put the manifest of " + id.str() + " in place");
  }
  return {};
}

void Manifests::forget(const Id& id) {
  const std::lock_guard lock(commitMutex_);
  ::unlinkat(layout_.state().fd.get(), ("manifest/" + id.str()).c_str(), 0);
}

}  // namespace kilnfs
