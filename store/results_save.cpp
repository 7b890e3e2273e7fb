// Saving a build's tmpdir as a result, and taking over what a former session saved.

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/fault.h"
#include "store/copy_node.h"
#include "store/results.h"
#include "store/rsync.h"
#include "store/seal.h"

namespace kilnfs {
namespace {

/// The id of the result that a snapshot is.
std::string resultOf(const Snapshot& snapshot) {
  return snapshot.key().substr(std::string_view("results/").size());
}

Expected<BackingId> idAt(const TreeRoot& root, const std::string& path) {
  const auto fd = root.open(path, O_PATH | O_DIRECTORY);
  struct stat st = {};
  if (!fd || ::fstat(fd->get(), &st) != 0) {
    if (!fd) errno = fd.error().code;
    return failErrno("open " + root.path() + "/" + path);
  }
  return backingId(st);
}

/// Whether an error says that something is not there, or is something else: not that it can't be
/// read at the moment.
bool isGone(int code) {
  switch (code) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case EXDEV:
    case EINVAL:
      return true;
    default:
      return false;
  }
}

/// What the new result's root may be: it has the base's attributes as well, if it stands for it.
Expected<RootStub> rootOf(const Workspace& workspace) {
  if (!workspace.cow()->untouched()) return RootStub::goes;
  const auto base = workspace.cow()->base()->open("", O_PATH | O_DIRECTORY);
  if (!base) return Failure(base.error());
  const auto root = workspace.open("", O_PATH | O_DIRECTORY);
  if (!root) return Failure(root.error());
  const auto same = sameAttributes(base->get(), root->get());
  if (!same) return Failure(same.error());
  return *same ? RootStub::stays : RootStub::goes;
}

}  // namespace

std::string Results::freshName(const Id& id) {
  const std::lock_guard lock(mutex_);
  for (;;) {
    std::string name = fmt::format("build.{}.{}", next_++, id.str());
    // One that a former session has sealed may be there still.
    if (!isDirectory(core_.layout.resultTmp(), name)) return name;
  }
}

Status Results::load() {
  auto sealed = core_.database->sealed();
  if (!sealed) return Failure(sealed.error());
  // In the order in which they were saved: a base before what lies over it.
  for (const SealedRow& row : *sealed) {
    auto ok = loadSealed(row);
    if (!ok && !isGone(ok.error().code)) {
      // What can't be read today may be read tomorrow.
      spdlog::error("recovery: {} can't be read now: {}: it is not shown until the next start",
                    inQuotes(row.id), ok.error().message);
      const std::lock_guard lock(unreadMutex_);
      unread_.emplace(row.id, row.tmp);
    } else if (!ok) {
      spdlog::error("recovery: {} can't be read any more and is dropped: {}", inQuotes(row.id),
                    ok.error().message);
      (void)core_.trash.take(core_.layout.resultTmp(), row.tmp);
      if (auto gone = core_.database->removeBuild(row.id); !gone) return gone;
    }
  }
  return {};
}

Status Results::loadSealed(const SealedRow& row) {
  auto id = Id::parse(row.id, "id");
  if (!id) return Failure(id.error());
  const Area& area = core_.layout.resultTmp();
  const TreeRoot tree(area.fd.get(), area.path, row.tmp, "");
  Materializer::Tree out{*id, row.tmp, {}, {}, std::nullopt, std::nullopt};
  auto root = idAt(tree, "");
  if (!root) return Failure(root.error());
  for (const uint64_t ino : row.shared) out.shared.insert({ino, root->dev});
  for (const SealedRow::Stub& stub : row.stubs) {
    auto placeholder = idAt(tree, stub.path);
    if (!placeholder) return Failure(placeholder.error());
    auto baseId = Id::parse(stub.base, "id");
    if (!baseId) return Failure(baseId.error());
    auto base = find(*baseId);
    if (!base) return Failure(base.error());
    if (!*base) return fail(ENOENT, fmt::format("{} is gone", stub.base));
    Snapshot::Place place = (*base)->resolve(stub.basePath);
    auto origin = idAt(*place.snapshot, place.path);
    if (!origin) return Failure(origin.error());
    out.elsewhere.push_back({stub.path, *placeholder, std::move(place), *origin});
  }
  spdlog::info("recovery: {} is to be made plain", id->str());
  materializer_.add(std::move(out));
  return {};
}

Status Results::sharePlainly(const Id& base, const std::string& tmp, const std::string& ready,
                             Interrupt& interrupt) {
  const Area& area = core_.layout.resultTmp();
  if (auto ok = makeOwnedDirectory(area, ready, User{::geteuid(), ::getegid()}); !ok) return ok;
  CopyTree share;
  share.source = area.path + "/" + tmp;
  share.destination = area.path + "/" + ready;
  share.linkTo = core_.layout.result().path + "/" + base.str();
  return copyTree(share, interrupt);
}

Status Results::save(const Id& id, const std::optional<Id>& base, Workspace& workspace,
                     const std::string& tmp, Interrupt& interrupt) {
  if (workspace.cow() != nullptr) return saveSealed(id, *base, workspace, tmp);
  if (!core_.plainWorkspaces || core_.mode != Mode::hardlink || !base) {
    return savePlain(id, base, tmp, std::nullopt);
  }
  const std::string ready = "seal." + tmp;
  auto ok = sharePlainly(*base, tmp, ready, interrupt);
  if (ok) ok = savePlain(id, base, ready, std::nullopt);
  (void)core_.trash.take(core_.layout.resultTmp(), ok ? tmp : ready);
  return ok;
}

Status Results::savePlain(const Id& id, const std::optional<Id>& base, const std::string& tmp,
                          std::optional<LinkCounts> links) {
  if (auto ok = core_.durability.changing(TreeKind::result, id.str()); !ok) return ok;
  // The row first: a row without a directory is dropped at the next start, but a directory without
  // a row would have lost its parent.
  if (auto ok =
          core_.database->addBuild(id.str(), base ? std::optional(base->str()) : std::nullopt);
      !ok) {
    return ok;
  }
  faultPoint("result.row");
  if (auto ok = renameInStore(core_.layout.resultTmp(), tmp, core_.layout.result(), id.str());
      !ok) {
    (void)core_.database->removeBuild(id.str());
    if (ok.error().code == EEXIST && !isDirectory(core_.layout.result(), id.str())) {
      return fail(ENOTDIR, fmt::format("{}/{} is in the way: it is not a directory",
                                       core_.layout.result().path, id.str()));
    }
    return ok;
  }
  faultPoint("result.rename");
  core_.durability.committed(TreeKind::result, id.str());
  core_.manifests.recordLater(id);
  auto made = find(id);
  if (!made || !*made) return {};
  if (links) (*made)->setLinks(std::move(*links));
  const std::lock_guard lock(mutex_);
  keep(std::move(*made));
  return {};
}

Status Results::saveSealed(const Id& id, const Id& base, Workspace& workspace,
                           const std::string& tmp) {
  const auto root = rootOf(workspace);
  if (!root) return Failure(root.error());
  auto sealed = seal(workspace, *root);
  if (!sealed) return Failure(sealed.error());
  if (sealed->stubs.empty() && (core_.mode == Mode::hardlink || sealed->shared.empty())) {
    return savePlain(id, base, tmp, std::move(sealed->links));
  }
  SealedRow row;
  row.id = id.str();
  row.tmp = tmp;
  for (const BackingId& file : sealed->shared) row.shared.push_back(file.ino);
  std::vector<Snapshot::Elsewhere> elsewhere;
  Snapshot::Over over{workspace.cow()->base(), {}, workspace.cow()->plainToOverlayfs()};
  for (Sealed::Stub& stub : sealed->stubs) {
    over.stubs.emplace(stub.path, stub.snapshot);
    Snapshot::Place place = workspace.cow()->base()->resolve(stub.snapshot);
    row.stubs.push_back({stub.path, resultOf(*place.snapshot), place.path});
    elsewhere.push_back({std::move(stub.path), stub.placeholder, std::move(place), stub.origin});
  }
  faultPoint("result.sealed");
  const std::lock_guard lock(mutex_);
  if (auto ok = core_.durability.changing(TreeKind::result, id.str()); !ok) return ok;
  // This is the commit.
  if (auto ok = core_.database->addSealed(row, base.str()); !ok) return ok;
  faultPoint("result.row");
  core_.durability.committed(TreeKind::result, id.str());
  auto made = materializer_.add({id, tmp, std::move(elsewhere), std::move(sealed->shared),
                                 std::move(sealed->links), std::move(over)});
  known_[id.str()] = made;
  keep(std::move(made));
  return {};
}

}  // namespace kilnfs
