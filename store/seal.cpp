#include "store/seal.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <set>

#include "store/copy_node.h"

namespace kilnfs {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

/// The names in an open directory. All are read before the caller changes any.
Expected<std::vector<std::string>> namesOf(int fd) {
  const std::unique_ptr<DIR, CloseDir> dir(::fdopendir(::openat(fd, ".", O_RDONLY | O_CLOEXEC)));
  if (!dir) return failErrno("read a directory");
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) {
      names.emplace_back(entry->d_name);
    }
  }
  return names;
}

Expected<UniqueFd> openDirectory(int at, const std::string& name) {
  UniqueFd fd(::openat(at, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return failErrno("open " + inQuotes(name));
  return fd;
}

std::string below(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "/" + name;
}

class Sealer {
 public:
  ~Sealer() {
    for (const auto& [id, copy] : copies_) ::unlinkat(sideFd_, copy.side.c_str(), 0);
  }
  Sealer(const Sealer&) = delete;
  Sealer& operator=(const Sealer&) = delete;

  Sealer(Workspace& workspace, std::optional<Mode> fillWith, Interrupt& interrupt)
      : workspace_(workspace),
        cow_(*workspace.cow()),
        fillWith_(fillWith),
        interrupt_(interrupt),
        groups_(cow_.groups()),
        sideFd_(workspace.beside().first) {}

  Expected<Sealed> seal() {
    auto root = workspace_.open("", O_RDONLY | O_DIRECTORY);
    if (!root) return Failure(root.error());
    struct stat st = {};
    if (::fstat(root->get(), &st) != 0) return failErrno("stat");
    Status ok;
    if (const auto stub = cow_.stub(backingId(st))) {
      ok = meetStub(root->get(), "", *stub, backingId(st));
    } else {
      ok = walkOwn(root->get(), "");
    }
    if (ok && !fillWith_) ok = ownReplaced();
    if (!ok) return Failure(ok.error());
    Sealed sealed;
    sealed.stubs = std::move(stubs_);
    sealed.links = links();
    removeSideFiles(workspace_);
    return sealed;
  }

 private:
  Status walkOwn(int fd, const std::string& path) {
    if (interrupt_.raised()) return fail(EINTR, "sealing was interrupted");
    auto names = namesOf(fd);
    if (!names) return Failure(names.error());
    struct stat before = {};
    ::fstat(fd, &before);
    for (const std::string& name : *names) {
      struct stat st = {};
      if (::fstatat(fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return failErrno("stat");
      if (auto ok = meet(fd, path, name, st); !ok) return ok;
    }
    const struct timespec times[2] = {before.st_atim, before.st_mtim};
    ::futimens(fd, times);
    return {};
  }

  Status meet(int fd, const std::string& path, const std::string& name, const struct stat& st) {
    const BackingId id = backingId(st);
    if (S_ISDIR(st.st_mode)) {
      auto child = openDirectory(fd, name);
      if (!child) return Failure(child.error());
      const auto stub = cow_.stub(id);
      if (!stub) return walkOwn(child->get(), below(path, name));
      return meetStub(child->get(), below(path, name), *stub, id);
    }
    if (const auto group = groups_.find(id);
        group != groups_.end() && !group->second.file.empty()) {
      return putInPlace(fd, name, group->second);
    }
    if (fillWith_ == Mode::copy && cow_.isShared(id)) {
      auto source = openNode(fd, name);
      if (!source) return Failure(source.error());
      const std::string side = workspace_.beside().second + "seal";
      if (auto ok = copyOrLink(source->get(), st, sideFd_, side); !ok) return ok;
      if (::renameat(sideFd_, side.c_str(), fd, name.c_str()) != 0) return failErrno("rename");
      return {};
    }
    if (st.st_nlink > 1 && !cow_.isShared(id)) ++ownLinks_[id];
    return {};
  }

  /// A name that still leads to the snapshot's file gets the one that replaced it.
  Status putInPlace(int fd, const std::string& name, const CopyOnWrite::Group& group) {
    ++inPlace_;
    const std::string side = workspace_.beside().second + "seal";
    if (::linkat(sideFd_, group.file.c_str(), sideFd_, side.c_str(), 0) != 0 ||
        ::renameat(sideFd_, side.c_str(), fd, name.c_str()) != 0) {
      return failErrno("put a changed file in place");
    }
    return {};
  }

  // Names of replaced files that are below stubs: those directories can't be taken over as they
  // are. Finding them is a walk over what the stubs stand for, so only where there must be some.
  Status ownReplaced() {
    size_t names = 0;
    for (const auto& [id, group] : groups_) names += group.file.empty() ? 0 : group.links;
    if (inPlace_ >= names) return {};
    std::vector<Sealed::Stub> stubs;
    stubs.swap(stubs_);
    for (const Sealed::Stub& stub : stubs) {
      auto found = holdsReplaced(stub.snapshot);
      if (!found) return Failure(found.error());
      if (!*found) {
        stubs_.push_back(stub);
        continue;
      }
      auto to = workspace_.open(stub.path, O_RDONLY | O_DIRECTORY);
      if (!to) return Failure(to.error());
      if (auto ok = ownLevel(to->get(), stub.path, stub.snapshot); !ok) return ok;
    }
    return {};
  }

  /// Whether a name of a replaced file is at or below the snapshot's directory `path`; remembers it
  /// of each directory on the way.
  Expected<bool> holdsReplaced(const std::string& path) {
    auto from = cow_.base()->open(path, O_RDONLY | O_DIRECTORY);
    if (!from) return Failure(from.error());
    auto names = namesOf(from->get());
    if (!names) return Failure(names.error());
    bool holds = false;
    for (const std::string& name : *names) {
      struct stat st = {};
      if (::fstatat(from->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return failErrno("stat");
      }
      if (S_ISDIR(st.st_mode)) {
        auto inner = holdsReplaced(below(path, name));
        if (!inner) return inner;
        holds = *inner || holds;
      } else {
        const auto group = groups_.find(backingId(st));
        holds = holds || (group != groups_.end() && !group->second.file.empty());
      }
    }
    if (holds) replacedBelow_.insert(path);
    return holds;
  }

  /// One directory of the snapshot becomes the new tree's own; its subdirectories become stubs, but
  /// for those that hold replaced files as well.
  Status ownLevel(int to, const std::string& path, const std::string& snapshot) {
    auto from = cow_.base()->open(snapshot, O_RDONLY | O_DIRECTORY);
    if (!from) return Failure(from.error());
    auto names = namesOf(from->get());
    if (!names) return Failure(names.error());
    for (const std::string& name : *names) {
      struct stat st = {};
      if (::fstatat(from->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return failErrno("stat");
      }
      if (!S_ISDIR(st.st_mode)) {
        if (auto ok = fillFile(from->get(), to, name, st); !ok) return ok;
        continue;
      }
      if (::mkdirat(to, name.c_str(), 0700) != 0) return failErrno("make a directory");
      auto child = openDirectory(to, name);
      if (!child) return Failure(child.error());
      if (replacedBelow_.count(below(snapshot, name)) != 0) {
        if (auto ok = ownLevel(child->get(), below(path, name), below(snapshot, name)); !ok)
          return ok;
        continue;
      }
      if (::fstat(child->get(), &st) != 0) return failErrno("stat");
      stubs_.push_back({below(path, name), below(snapshot, name), backingId(st)});
    }
    return copyAttributes(from->get(), to);
  }

  Status meetStub(int fd, const std::string& path, const CopyOnWrite::Stub& stub,
                  const BackingId& placeholder) {
    if (!fillWith_) {
      stubs_.push_back({path, stub.path, placeholder});
      return {};
    }
    return fill(fd, stub.path, stub.ownAttributes);
  }

  Status fill(int to, const std::string& path, bool ownAttributes) {
    if (interrupt_.raised()) return fail(EINTR, "sealing was interrupted");
    auto from = cow_.base()->open(path, O_RDONLY | O_DIRECTORY);
    if (!from) return Failure(from.error());
    struct stat before = {};
    ::fstat(to, &before);
    auto names = namesOf(from->get());
    if (!names) return Failure(names.error());
    for (const std::string& name : *names) {
      struct stat st = {};
      if (::fstatat(from->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return failErrno("stat");
      }
      if (!S_ISDIR(st.st_mode)) {
        if (auto ok = fillFile(from->get(), to, name, st); !ok) return ok;
        continue;
      }
      if (::mkdirat(to, name.c_str(), 0700) != 0) return failErrno("make a directory");
      auto child = openDirectory(to, name);
      if (!child) return Failure(child.error());
      if (auto ok = fill(child->get(), below(path, name), false); !ok) return ok;
    }
    if (!ownAttributes) return copyAttributes(from->get(), to);
    const struct timespec times[2] = {before.st_atim, before.st_mtim};
    ::futimens(to, times);
    return {};
  }

  Status fillFile(int from, int to, const std::string& name, const struct stat& st) {
    const BackingId id = backingId(st);
    if (const auto group = groups_.find(id);
        group != groups_.end() && !group->second.file.empty()) {
      if (::linkat(sideFd_, group->second.file.c_str(), to, name.c_str(), 0) == 0) return {};
      return failErrno("put a changed file in place");
    }
    // Without a mode the base goes, so its files may be linked to.
    const bool link = fillWith_ != Mode::copy;
    if (link && ::linkat(from, name.c_str(), to, name.c_str(), 0) == 0) {
      return {};
    }
    if (link && errno != EMLINK && errno != EPERM) return failErrno("link");
    auto source = openNode(from, name);
    if (!source) return Failure(source.error());
    return copyOrLink(source->get(), st, to, name);
  }

  Expected<UniqueFd> openNode(int at, const std::string& name) {
    UniqueFd fd(::openat(at, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid()) return failErrno("open " + inQuotes(name));
    return fd;
  }

  /// A copy, or a link to the copy that another name of the same file has been given.
  Status copyOrLink(int source, const struct stat& st, int to, const std::string& name) {
    // Counting is a walk over the snapshot: only where the count on disk allows for a second name.
    const bool several = st.st_nlink > 1 && cow_.base()->linksInside(backingId(st)) > 1;
    if (!several) return copyNode(source, to, name);
    Copy& copy = copies_[backingId(st)];
    if (!copy.side.empty()) {
      if (::linkat(sideFd_, copy.side.c_str(), to, name.c_str(), 0) != 0) {
        return failErrno("link to a copy");
      }
      copiedLinks_[copy.id] = ++copy.links;
      return {};
    }
    if (auto ok = copyNode(source, to, name); !ok) return ok;
    struct stat made = {};
    copy.side = fmt::format("{}copy.{}", workspace_.beside().second, copies_.size());
    if (::fstatat(to, name.c_str(), &made, AT_SYMLINK_NOFOLLOW) != 0 ||
        ::linkat(to, name.c_str(), sideFd_, copy.side.c_str(), 0) != 0) {
      return failErrno("keep a link to a copy");
    }
    copy.id = backingId(made);
    return {};
  }

  /// The counts of the new tree follow from the snapshot's, if those are known.
  std::optional<LinkCounts> links() const {
    LinkCounts counts;
    if (fillWith_ == Mode::copy) {
      counts = copiedLinks_;
      for (const auto& [id, group] : groups_) {
        if (!group.file.empty() && group.links > 1) counts[group.id] = group.links;
      }
    } else {
      const auto known = cow_.base()->knownLinks();
      if (!known) return std::nullopt;
      counts = *known;
      for (const auto& [id, group] : groups_) {
        counts.erase(id);
        if (group.links > 1) counts[group.file.empty() ? id : group.id] = group.links;
      }
    }
    for (const auto& [id, links] : ownLinks_) {
      if (links > 1) counts[id] = links;
    }
    return counts;
  }

  Workspace& workspace_;
  const CopyOnWrite& cow_;
  const std::optional<Mode> fillWith_;  // nothing: stubs are left
  Interrupt& interrupt_;
  const std::unordered_map<BackingId, CopyOnWrite::Group, HashBackingId> groups_;
  const int sideFd_;
  std::vector<Sealed::Stub> stubs_;
  size_t inPlace_ = 0;                   // names of replaced files that were met
  std::set<std::string> replacedBelow_;  // directories of the snapshot
  LinkCounts ownLinks_;
  LinkCounts copiedLinks_;
  /// The copy of a file with several names, with a name of its own beside the tree: a descriptor
  /// for each would be too many.
  struct Copy {
    std::string side;
    BackingId id;
    nlink_t links = 1;
  };
  std::unordered_map<BackingId, Copy, HashBackingId> copies_;
};

}  // namespace

Expected<Sealed> sealWhole(Workspace& workspace, Mode mode, Interrupt& interrupt) {
  if (workspace.cow() == nullptr) return Sealed{};
  return Sealer(workspace, mode, interrupt).seal();
}

Expected<Sealed> sealKeepingStubs(Workspace& workspace) {
  if (workspace.cow() == nullptr) return Sealed{};
  Interrupt never;
  return Sealer(workspace, std::nullopt, never).seal();
}

void removeSideFiles(Workspace& workspace) {
  if (workspace.cow() == nullptr) return;
  for (const auto& [id, group] : workspace.cow()->groups()) {
    if (!group.file.empty()) ::unlinkat(workspace.beside().first, group.file.c_str(), 0);
  }
}

}  // namespace kilnfs
