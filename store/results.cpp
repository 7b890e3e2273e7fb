#include "store/results.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "store/base/directory_names.h"
#include "store/base/fault.h"
#include "store/copy_node.h"
#include "store/rsync.h"
#include "store/seal.h"
#include "store/tree/tree.h"

namespace kilnfs {
namespace {

/// Whether there is nothing in `base`. Then `name` of `area` gets the attributes of its root.
Expected<bool> beginsEmpty(const Snapshot& base, const Area& area, const std::string& name) {
  const auto from = base.open("", O_RDONLY | O_DIRECTORY);
  if (!from) return Failure(from.error());
  auto empty = isEmptyDirectory(from->get());
  if (!empty || !*empty) return empty;
  const UniqueFd to(
      ::openat(area.fd.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!to.valid()) return failErrno(fmt::format("open {}/{}", area.path, name));
  if (auto ok = copyAttributes(from->get(), to.get()); !ok) return Failure(ok.error());
  return true;
}

/// Root needs no way into a build's directory to change what is saved; and it can make what
/// overlayfs keeps for itself, and may.
bool isTrusted(User owner) {
  return owner.uid == 0;
}

}  // namespace

/// Registers a build for as long as it lasts, so that its base stays and nobody builds it twice.
class Results::InProgress {
 public:
  InProgress(Results& results, const Id& id, const std::optional<Id>& base)
      : results_(results), id_(id), base_(base) {}
  ~InProgress() { results_.end(id_, base_); }
  InProgress(const InProgress&) = delete;
  InProgress& operator=(const InProgress&) = delete;

 private:
  Results& results_;
  const Id& id_;
  const std::optional<Id>& base_;
};

Results::~Results() {
  flushTouched();
}

Status Results::begin(const Id& id, const std::optional<Id>& base) {
  const std::lock_guard lock(mutex_);
  const auto there = stores(id);
  if (!there) return Failure(there.error());
  if (*there) return fail(EEXIST, fmt::format("result {} exists", id.str()));
  const auto based = base ? stores(*base) : Expected<bool>(true);
  if (!based) return Failure(based.error());
  if (!*based) return fail(ENOENT, fmt::format("base {}: no such result", base->str()));
  if (!building_.insert(id.str()).second) {
    return fail(EBUSY, fmt::format("{} is being built", id.str()));
  }
  if (base) bases_.insert(base->str());
  return {};
}

void Results::end(const Id& id, const std::optional<Id>& base) {
  const std::lock_guard lock(mutex_);
  building_.erase(id.str());
  if (base) bases_.erase(bases_.find(base->str()));
}

Status Results::build(const Id& id, const std::optional<Id>& base, User owner, Interrupt& interrupt,
                      const Store::BuildFn& fn) {
  if (auto ok = begin(id, base); !ok) return ok;
  const InProgress registered(*this, id, base);
  if (base) touch(*base);
  const std::string tmp = freshName(id);
  const Area& area = core_.layout.resultTmp();
  std::unique_ptr<Overlay> overlay;
  auto workspace = open(id, base, tmp, owner, interrupt, overlay);
  Status done = workspace ? fn(*workspace) : Status(Failure(workspace.error()));
  if (workspace) (*workspace)->freeze(true);
  if (done && overlay) {
    workspace = overlay->finish(isTrusted(owner), interrupt);
    if (!workspace) done = Failure(workspace.error());
  }
  if (done) done = save(id, base, **workspace, tmp, interrupt);
  if (done) {
    core_.events.post({{"event", "result"}, {"id", id.str()}, {"state", "saved"}});
    return {};
  }
  if (workspace) removeSideFiles(**workspace);
  if (auto gone = core_.trash.take(area, tmp); !gone && gone.error().code != ENOENT) {
    spdlog::warn("{}: {}", id.str(), gone.error().message);
  }
  return done;
}

bool Results::madeByObuilder(const Id& id) const {
  const auto ours = core_.database->madeByUs(id.str());
  return ours && !*ours;
}

Expected<std::shared_ptr<Workspace>> Results::open(const Id& id, const std::optional<Id>& base,
                                                   const std::string& tmp, User owner,
                                                   Interrupt& interrupt,
                                                   std::unique_ptr<Overlay>& overlay) {
  const Area& area = core_.layout.resultTmp();
  const std::string key = "builds/" + id.str();
  if (auto ok = makeOwnedDirectory(area, tmp, owner); !ok) return Failure(ok.error());
  if (!base || core_.plainWorkspaces) {
    if (base) {
      if (auto ok = copyPlainly(*base, tmp, interrupt); !ok) return Failure(ok.error());
    }
    return openPlain(tmp, key, owner, overlay);
  }
  auto snapshot = basis(*base);
  if (!snapshot) return Failure(snapshot.error());
  if (!*snapshot) return fail(ENOENT, fmt::format("base {}: no such result", base->str()));
  // There is nothing that could be shared with one that is empty.
  auto empty = beginsEmpty(**snapshot, area, tmp);
  if (!empty) return Failure(empty.error());
  if (*empty) return openPlain(tmp, key, owner, overlay);
  Expected<std::shared_ptr<Workspace>> workspace;
  if (core_.nativeBuilds) {
    auto opened = core_.overlays.open(tmp, key, *snapshot);
    if (!opened) return Failure(opened.error());
    overlay = std::move(*opened);
  }
  if (overlay) {
    workspace = overlay->seen();
  } else {
    workspace = openWorkspace(area, tmp, key, *snapshot);
  }
  // OBuilder keeps a result's log inside it; it is not part of what the build made.
  if (workspace && madeByObuilder(*base)) {
    const auto tree = Tree::create(*workspace, 0);
    if (auto root = tree->root()) (void)tree->unlink(*root->inode, "log");
  }
  return workspace;
}

Expected<std::shared_ptr<Workspace>> Results::openPlain(const std::string& tmp,
                                                        const std::string& key, User owner,
                                                        std::unique_ptr<Overlay>& overlay) {
  const Area& area = core_.layout.resultTmp();
  // Only an overlay can be closed to one who has kept a way into it (overlay_mount.h).
  const bool trusted = isTrusted(owner);
  if (core_.nativeBuilds && !trusted) {
    auto opened = core_.overlays.open(tmp, key, nullptr);
    if (!opened) return Failure(opened.error());
    overlay = std::move(*opened);
    if (overlay) return overlay->seen();
  }
  auto plain = std::make_shared<Workspace>(area.fd.get(), area.path, tmp, key);
  if (core_.nativeBuilds && trusted && core_.overlays.available()) {
    plain->setNative({area.path + "/" + tmp, nullptr});
  }
  return plain;
}

Status Results::copyPlainly(const Id& base, const std::string& tmp, Interrupt& interrupt) {
  CopyTree copy;
  copy.source = core_.layout.result().path + "/" + base.str();
  copy.destination = core_.layout.resultTmp().path + "/" + tmp;
  if (madeByObuilder(base)) copy.exclude.push_back("/log");
  return copyTree(copy, interrupt);
}

void Results::keep(std::shared_ptr<Snapshot> snapshot) {
  constexpr size_t kKept = 64;
  if (std::find(recent_.begin(), recent_.end(), snapshot) != recent_.end()) return;
  recent_.push_back(std::move(snapshot));
  if (recent_.size() > kKept) recent_.pop_front();
}

void Results::placed(const Id& id, const Snapshot& sealed, const UniqueFd& root,
                     std::optional<LinkCounts> links) {
  core_.manifests.recordLater(id);
  auto now = open(id);
  struct stat made = {};
  const bool looked = ::fstat(root.get(), &made) == 0;
  if (looked && sealed.over() && sealed.over()->plainToOverlayfs) {
    core_.overlays.takeAsSuited(*now, made);
  }
  faultPoint("result.counted");
  const std::lock_guard lock(mutex_);
  std::erase_if(recent_, [&](const auto& kept) { return kept.get() == &sealed; });
  // It may have been deleted since, and built anew: another tree.
  struct stat here = {};
  if (!links ||
      ::fstatat(core_.layout.result().fd.get(), id.str().c_str(), &here, AT_SYMLINK_NOFOLLOW) !=
          0 ||
      backingId(here) != backingId(made)) {
    return;
  }
  now->setLinks(std::move(*links));
  plain_[id.str()] = now;
  keep(std::move(now));
}

bool Results::has(const Id& id) const {
  return materializer_.has(id) || isDirectory(core_.layout.result(), id.str());
}

Expected<std::shared_ptr<Snapshot>> Results::find(const Id& id) {
  const std::lock_guard lock(mutex_);
  return findLocked(id);
}

std::shared_ptr<Snapshot> Results::open(const Id& id) const {
  const Area& area = core_.layout.result();
  return std::make_shared<Snapshot>(area.fd.get(), area.path, id.str(), "results/" + id.str());
}

Expected<std::shared_ptr<Snapshot>> Results::findLocked(const Id& id) {
  auto sealed = materializer_.find(id);
  if (!sealed) {
    const auto there = stores(id);
    if (!there) return Failure(there.error());
    if (!*there) return sealed;
  }
  std::weak_ptr<Snapshot>& slot = known_[id.str()];
  if (auto held = slot.lock()) return held;
  if (!sealed) sealed = plain(id);
  slot = sealed;
  return sealed;
}

std::shared_ptr<Snapshot> Results::plain(const Id& id) const {
  const auto slot = plain_.find(id.str());
  auto held = slot != plain_.end() ? slot->second.lock() : nullptr;
  return held ? held : open(id);
}

// Whoever looks at a result goes on seeing it as when they began. A build need not.
Expected<std::shared_ptr<Snapshot>> Results::basis(const Id& id) {
  const std::lock_guard lock(mutex_);
  auto found = findLocked(id);
  if (!found || !*found) return found;
  if (!(*found)->plain() && !materializer_.has(id)) {
    *found = plain(id);
    plain_[id.str()] = *found;
  }
  keep(*found);
  return found;
}

Expected<std::vector<Id>> Results::withChildren(const Id& id, bool recursive) {
  std::vector<Id> order = {id};  // a parent before its children
  std::set<Id> seen = {id};
  for (size_t i = 0; i < order.size(); ++i) {
    const Id parent = order[i];
    auto children = core_.database->children(parent.str());
    if (!children) return Failure(children.error());
    const auto unread = unreadOver(parent.str());
    if (!unread) return Failure(unread.error());
    children->insert(children->end(), unread->begin(), unread->end());
    for (const std::string& child : *children) {
      auto name = Id::parse(child, "id");
      // One that can't be read is still there.
      if (!name || !stores(*name).value_or(true)) continue;
      if (!recursive) {
        return fail(ENOTEMPTY,
                    fmt::format("{} has results built on it ({}): delete those first, or "
                                "use delete --recursive",
                                id.str(), child));
      }
      if (seen.insert(*name).second) order.push_back(*name);
    }
  }
  return order;
}

std::shared_ptr<Snapshot> Results::letGo(const Id& id) {
  const std::string& name = id.str();
  std::shared_ptr<Snapshot> held;
  for (auto* held_by : {&plain_, &known_}) {
    const auto slot = held_by->find(name);
    if (slot == held_by->end()) continue;
    if (auto snapshot = slot->second.lock(); snapshot && snapshot->plain()) {
      held = std::move(snapshot);
    }
    held_by->erase(slot);
  }
  std::erase_if(recent_, [&](const auto& kept) { return kept->key() == "results/" + name; });
  return held;
}

Status Results::discard(const Id& id) {
  const auto held = letGo(id);
  if (auto ok = materializer_.remove(id); ok || ok.error().code != ENOENT) return ok;
  if (const auto unread = unreadTree(id)) {
    auto ok = core_.trash.take(core_.layout.resultTmp(), *unread);
    const std::lock_guard lock(unreadMutex_);
    if (ok) unread_.erase(id.str());
    return ok;
  }
  return core_.trash.take(core_.layout.result(), id.str(), held.get());
}

Status Results::remove(const Id& id, bool recursive) {
  const std::lock_guard lock(mutex_);
  // One that can't be read may go all the same: somebody asks for it by name.
  const auto there = unreadTree(id) ? Expected<bool>(true) : stores(id);
  if (!there) return Failure(there.error());
  if (!*there) return fail(ENOENT, fmt::format("{}: no such result", id.str()));
  auto order = withChildren(id, recursive);
  if (!order) return Failure(order.error());
  for (const Id& each : *order) {
    if (auto ok = refuseNeeded(each); !ok) return ok;
  }
  return removeAll(*order);
}

Status Results::removeAll(const std::vector<Id>& order) {
  for (auto each = order.rbegin(); each != order.rend(); ++each) {
    const std::string& name = each->str();
    if (auto ok = core_.durability.changing(TreeKind::result, name); !ok) return ok;
    if (auto ok = discard(*each); !ok) return ok;
    core_.manifests.forget(*each);
    touched_.erase(name);
    if (auto ok = core_.database->removeBuild(name); !ok) {
      spdlog::error("{} is deleted, but its row is not: {}", name, ok.error().message);
      rowsLeft_.insert(*each);
    }
    ::unlinkat(core_.layout.log().fd.get(), name.c_str(), 0);
    core_.events.post({{"event", "result"}, {"id", name}, {"state", "deleted"}});
  }
  return {};
}

void Results::touch(const Id& id) {
  constexpr int64_t kFlushEvery = 5;
  const int64_t now = ::time(nullptr);
  {
    const std::lock_guard lock(mutex_);
    touched_[id.str()] = now;
    // A clock that was set back must not put it off until the clock is where it was.
    if (now >= flushed_ && now - flushed_ < kFlushEvery) return;
    flushed_ = now;
  }
  flushTouched();
}

Expected<ResultInfo> Results::info(const Id& id) {
  flushTouched();
  auto row = core_.database->build(id.str());
  if (!row) return Failure(row.error());
  if (!*row) return fail(ENOENT, fmt::format("{}: no such result", id.str()));
  ResultInfo info{id, std::nullopt, (*row)->created, (*row)->used, (*row)->children};
  if ((*row)->parent) {
    if (auto parent = Id::parse(*(*row)->parent, "id")) info.parent = *parent;
  }
  return info;
}

std::optional<std::string> Results::logFile(const Id& id) const {
  struct stat st = {};
  if (::fstatat(core_.layout.log().fd.get(), id.str().c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
      S_ISREG(st.st_mode)) {
    return core_.layout.log().path + "/" + id.str();
  }
  const std::string inside = id.str() + "/log";
  if (::fstatat(core_.layout.result().fd.get(), inside.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
      S_ISREG(st.st_mode) && madeByObuilder(id)) {
    return core_.layout.result().path + "/" + inside;
  }
  return std::nullopt;
}

Expected<UniqueFd> Results::createLog(const Id& id) {
  const Area& area = core_.layout.log();
  if (::unlinkat(area.fd.get(), id.str().c_str(), 0) != 0 && errno != ENOENT) {
    return failErrno(fmt::format("replace the log of {}", id.str()));
  }
  UniqueFd fd(::openat(area.fd.get(), id.str().c_str(),
                       O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!fd.valid()) return failErrno(fmt::format("make the log of {}", id.str()));
  return fd;
}

Status Results::removeLog(const Id& id) {
  const std::lock_guard lock(mutex_);
  if (building_.count(id.str()) != 0) {
    return fail(EBUSY, fmt::format("{} is being built: its log is in use", id.str()));
  }
  if (::unlinkat(core_.layout.log().fd.get(), id.str().c_str(), 0) != 0) {
    return failErrno(fmt::format("delete the log of {}", id.str()));
  }
  return {};
}

}  // namespace kilnfs
