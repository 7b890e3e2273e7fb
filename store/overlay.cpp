#include "store/overlay.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include "store/base/remove_tree.h"
#include "store/copy_node.h"
#include "store/make_plain.h"
#include "store/overlay_base.h"
#include "store/overlay_mount.h"
#include "store/overlay_upper.h"

namespace kilnfs {
namespace {

/// The lower directory of those that lie over nothing: overlayfs must have one.
constexpr const char* kNothing = "nothing.overlay";

Expected<UniqueFd> makeDirectory(const Area& area, const std::string& name) {
  if (::mkdirat(area.fd.get(), name.c_str(), 0700) != 0 && errno != EEXIST) {
    return failErrno("make " + area.path + "/" + name);
  }
  UniqueFd fd(
      ::openat(area.fd.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return failErrno("open " + area.path + "/" + name);
  return fd;
}

/// The overlay, as the mount shows it. Whoever has looked into it may know this for long, so it can
/// let go of the overlay, which keeps the base of the next build busy.
class View : public Workspace {
 public:
  View(std::shared_ptr<const UniqueFd> root, const Area& area, const std::string& name,
       const std::string& key)
      : Workspace(area.fd.get(), area.path, name, key), root_(std::move(root)) {}

  Expected<UniqueFd> open(const std::string& path, int flags) const override {
    const auto root = this->root();
    if (!root) return fail(ESTALE);
    return TreeRoot(root->get(), {}, ".", {}).open(path, flags);
  }
  Status makeReadOnly() const {
    const auto root = this->root();
    return root ? kilnfs::makeReadOnly(root->get()) : Status(fail(ESTALE));
  }
  void drop() {
    leaveSpace();
    std::shared_ptr<const UniqueFd> dropped;  // after the lock
    const std::lock_guard lock(mutex_);
    dropped.swap(root_);
  }

 private:
  std::shared_ptr<const UniqueFd> root() const {
    const std::lock_guard lock(mutex_);
    return root_;
  }

  mutable std::mutex mutex_;
  std::shared_ptr<const UniqueFd> root_;  // guarded by mutex_
};

/// Closes `fd` on a thread of `closers`.
std::shared_ptr<const UniqueFd> closedLater(UniqueFd fd, Workers& closers) {
  return {new UniqueFd(std::move(fd)),
          [&closers](const UniqueFd* held) { closers.run([held] { delete held; }); }};
}

}  // namespace

class MountedOverlay : public Overlay {
 public:
  MountedOverlay(Overlays& overlays, const std::string& name, const std::string& key,
                 std::shared_ptr<Snapshot> base,
                 std::vector<std::shared_ptr<const OverlayLayer>> layers, Mounted mounted)
      : overlays_(overlays),
        name_(name),
        work_("work." + name),
        base_(std::move(base)),
        layers_(std::move(layers)) {
    seen_ = std::make_shared<View>(closedLater(std::move(mounted.view), overlays.closers_),
                                   overlays.area_, name, key);
    seen_->setNative({overlays.area_.path + "/" + name,
                      closedLater(std::move(mounted.space), overlays.closers_)});
  }
  ~MountedOverlay() override {
    seen_->drop();
    if (auto gone = overlays_.trash_.take(overlays_.area_, work_); !gone) {
      spdlog::warn("{}: {}", work_, gone.error().message);
    }
  }
  MountedOverlay(const MountedOverlay&) = delete;
  MountedOverlay& operator=(const MountedOverlay&) = delete;

  std::shared_ptr<Workspace> seen() const override { return seen_; }

  Expected<std::shared_ptr<Workspace>> finish(bool trusted, Interrupt& interrupt) override {
    if (auto ok = trusted ? Status() : seen_->makeReadOnly(); !ok) {
      return ok.error().code == EBUSY ? copyOut(interrupt) : Failure(ok.error());
    }
    seen_->drop();
    const Area& area = overlays_.area_;
    const std::string side = TreeRoot(area.fd.get(), area.path, name_, "").beside().second;
    const auto below = base_ ? base_ : overlays_.nothing();
    auto cow = translateUpper({area.fd.get(), name_, work_, side}, below);
    if (!cow) return Failure(cow.error());
    if (!base_) *cow = nullptr;  // all there is is the build's own
    auto out =
        std::make_shared<Workspace>(area.fd.get(), area.path, name_, seen_->key(), std::move(*cow));
    out->freeze(true);
    return out;
  }

 private:
  /// Its files are in somebody's hands, if only to read one that was deleted, which the kernel does
  /// not tell from writing: nobody has those of a copy.
  Expected<std::shared_ptr<Workspace>> copyOut(Interrupt& interrupt) {
    const Area& area = overlays_.area_;
    const auto root = seen_->open("", O_RDONLY | O_DIRECTORY);
    if (!root) return Failure(root.error());
    const auto nothing = makeDirectory(area, kNothing);
    if (!nothing) return Failure(nothing.error());
    struct stat placeholder = {};
    struct stat origin = {};
    if (::fstat(nothing->get(), &placeholder) != 0 || ::fstat(root->get(), &origin) != 0) {
      return failErrno("stat");
    }
    // Step by step, since whoever still writes may put links in the way; and as something that is
    // elsewhere, all of which is copied.
    const auto view = std::make_shared<Snapshot>(root->get(), "", ".", seen_->key());
    const auto all = overlays_.nothing();
    all->refer({{"", backingId(placeholder), {view, ""}, backingId(origin)}});
    const std::string copy = "copy." + name_;
    auto made = makePlain({*all, area, copy, Mode::copy, {}}, interrupt);
    Status ok = made ? Status() : Failure(made.error());
    if (ok) ok = overlays_.trash_.take(area, name_);
    if (ok) ok = renameInStore(area, copy, area, name_);
    if (!ok) {
      (void)overlays_.trash_.take(area, copy);
      return Failure(ok.error());
    }
    seen_->drop();
    auto out = std::make_shared<Workspace>(area.fd.get(), area.path, name_, seen_->key());
    out->freeze(true);
    return out;
  }

  Overlays& overlays_;
  const std::string name_;
  const std::string work_;
  const std::shared_ptr<Snapshot> base_;  // null: over nothing
  const std::vector<std::shared_ptr<const OverlayLayer>> layers_;
  std::shared_ptr<View> seen_;
};

// What an overlay has to do, and on some file systems does not, though it can be mounted.
Status Overlays::probe() {
  const std::string name = "probe.overlay";
  (void)removeTree(area_.fd.get(), name);
  auto top = makeDirectory(area_, name);
  if (!top) return Failure(top.error());
  Area area;
  area.fd = std::move(*top);
  area.path = area_.path + "/" + name;
  auto lower = makeDirectory(area, "lower");
  auto upper = makeDirectory(area, "upper");
  auto work = makeDirectory(area, "work");
  if (!lower || !upper || !work) return fail(EIO, "directories to try an overlay can't be made");
  const int at = area.fd.get();
  const UniqueFd file(::openat(at, "lower/a", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (::mkdirat(at, "lower/d", 0700) != 0 || !file.valid() ||
      ::linkat(at, "lower/a", at, "lower/b", 0) != 0) {
    return failErrno("make a file to try an overlay with");
  }
  std::vector<UniqueFd> layers;
  layers.push_back(std::move(*lower));
  auto mounted = mountOverlay(layers, upper->get(), work->get(), true, area.path + "/upper");
  if (!mounted) return Failure(mounted.error());
  const int view = mounted->view.get();
  if (::renameat(view, "d", view, "e") != 0) {
    return failErrno("rename a directory of the lower layer");
  }
  const UniqueFd written(::openat(view, "a", O_WRONLY | O_CLOEXEC));
  struct stat st = {};
  if (!written.valid() || ::write(written.get(), "x", 1) != 1 ||
      ::fstatat(view, "b", &st, 0) != 0) {
    return failErrno("write to a file of the lower layer");
  }
  if (st.st_size != 1) return fail(EOPNOTSUPP, "an overlay here breaks hard links");
  return {};
}

bool Overlays::available() {
  const std::lock_guard lock(mutex_);
  if (available_) return *available_;
  const Status tried = probe();
  if (!tried) {
    spdlog::info("builds go through the mount, not at native speed: {}", tried.error().message);
  }
  (void)removeTree(area_.fd.get(), "probe.overlay");
  available_ = tried.has_value();
  return *available_;
}

Expected<bool> Overlays::suits(const std::shared_ptr<Snapshot>& base) {
  if (base->over() && base->over()->plainToOverlayfs) return true;
  auto root = base->open("", O_PATH | O_DIRECTORY);
  if (!root) return Failure(root.error());
  struct stat st = {};
  struct stat here = {};
  if (::fstat(root->get(), &st) != 0 || ::fstat(area_.fd.get(), &here) != 0) {
    return failErrno("stat");
  }
  if (st.st_dev != here.st_dev) return false;
  {
    const std::lock_guard lock(mutex_);
    const auto known = checked_.find(base->key());
    if (known != checked_.end() && known->second.ino == st.st_ino &&
        known->second.changed.tv_sec == st.st_ctim.tv_sec &&
        known->second.changed.tv_nsec == st.st_ctim.tv_nsec) {
      return known->second.plain;
    }
  }
  auto plain = plainToOverlayfs(*base);
  if (!plain) return plain;
  if (!*plain) {
    spdlog::info(
        "{} holds what overlayfs keeps for itself (character devices 0:0 or attributes "
        "trusted.overlay.*): builds on it go through the mount",
        base->key());
  }
  remember(*base, st, *plain);
  return plain;
}

void Overlays::remember(const Snapshot& base, const struct stat& root, bool plain) {
  const std::lock_guard lock(mutex_);
  constexpr size_t kRemembered = 10000;
  if (checked_.size() > kRemembered) checked_.clear();
  checked_[base.key()] = {root.st_ino, root.st_ctim, plain};
}

/// Null: not with this one. That it can't be made, for whatever reason, costs speed and no more.
std::shared_ptr<const OverlayLayer> Overlays::layerOf(const std::shared_ptr<Snapshot>& sealed,
                                                      const Snapshot& base) {
  const std::lock_guard lock(layersMutex_);
  if (auto made = sealed->layer()) return made;
  auto layer =
      std::make_shared<const OverlayLayer>(area_, trash_, fmt::format("layer.{}", nextLayer_++));
  const auto made = makeLayer(area_, layer->name(), *sealed, base);
  if (!made) {
    spdlog::info("builds on {} go through the mount until it is plain: {}", sealed->key(),
                 textOf(made.error()));
  }
  if (!made || !*made) return nullptr;
  sealed->setLayer(layer);
  return layer;
}

std::shared_ptr<Snapshot> Overlays::nothing() const {
  return std::make_shared<Snapshot>(area_.fd.get(), area_.path, kNothing, kNothing);
}

Overlays::~Overlays() {
  closers_.drain();
  ::unlinkat(area_.fd.get(), kNothing, AT_REMOVEDIR);
}

Expected<std::optional<Overlays::Lower>> Overlays::lowerOf(const std::shared_ptr<Snapshot>& base) {
  if (!base) {
    auto empty = makeDirectory(area_, kNothing);
    if (!empty) return Failure(empty.error());
    Lower lower;
    lower.roots.push_back(std::move(*empty));
    return lower;
  }
  const auto chain = chainOf(base);
  if (!chain) return std::optional<Lower>();
  const auto& [sealed, bottom] = *chain;
  auto suited = suits(bottom);
  if (!suited) return Failure(suited.error());
  if (!*suited) return std::optional<Lower>();
  Lower lower;
  for (size_t i = 0; i < sealed.size(); ++i) {
    auto layer = layerOf(sealed[i], i + 1 < sealed.size() ? *sealed[i + 1] : *bottom);
    if (!layer) return std::optional<Lower>();
    auto root = layer->open();
    if (!root) return Failure(root.error());
    lower.roots.push_back(std::move(*root));
    lower.layers.push_back(std::move(layer));
  }
  auto root = bottom->open("", O_RDONLY | O_DIRECTORY);
  if (!root) return Failure(root.error());
  lower.roots.push_back(std::move(*root));
  return lower;
}

Expected<std::unique_ptr<Overlay>> Overlays::open(const std::string& name, const std::string& key,
                                                  const std::shared_ptr<Snapshot>& base) {
  if (!available()) return std::unique_ptr<Overlay>();
  auto lower = lowerOf(base);
  if (!lower) return Failure(lower.error());
  if (!*lower) return std::unique_ptr<Overlay>();
  auto upper = makeDirectory(area_, name);
  if (!upper) return Failure(upper.error());
  if (base) {
    if (auto ok = copyAttributes((*lower)->roots.front().get(), upper->get()); !ok) {
      return Failure(ok.error());
    }
  }
  auto work = makeDirectory(area_, "work." + name);
  if (!work) return Failure(work.error());
  // With an index, taking away one name of a file that has several on disk costs a copy of it. In
  // mode hardlink that is every file, so no index if the base has no such files of its own.
  const bool index = base && base->hasLinks().value_or(true);
  const auto tryMount = [&] {
    return mountOverlay((*lower)->roots, upper->get(), work->get(), index, area_.path + "/" + name);
  };
  auto mounted = tryMount();
  if (!mounted && mounted.error().code == EBUSY) {
    // The base was made in an overlay that is not gone yet.
    closers_.drain();
    // The first attempt has left its mark there.
    (void)removeTree(area_.fd.get(), "work." + name);
    work = makeDirectory(area_, "work." + name);
    if (!work) return Failure(work.error());
    mounted = tryMount();
  }
  if (!mounted) {
    (void)removeTree(area_.fd.get(), "work." + name);
    // Somebody has a file of that build open.
    if (mounted.error().code == EBUSY) return std::unique_ptr<Overlay>();
    if (!(*lower)->layers.empty()) {
      spdlog::info("builds on {} go through the mount until it is plain: {}", base->key(),
                   mounted.error().message);
      return std::unique_ptr<Overlay>();
    }
    return Failure(mounted.error());
  }
  return std::make_unique<MountedOverlay>(*this, name, key, base, std::move((*lower)->layers),
                                          std::move(*mounted));
}

}  // namespace kilnfs
