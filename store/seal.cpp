#include "store/seal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "store/base/directory_names.h"
#include "store/copy_node.h"

namespace kilnfs {
namespace {

Expected<UniqueFd> openDirectory(int at, const std::string& name) {
  UniqueFd fd(::openat(at, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return failErrno("open " + inQuotes(name));
  return fd;
}

class Sealer {
 public:
  explicit Sealer(Workspace& workspace)
      : workspace_(workspace),
        cow_(*workspace.cow()),
        groups_(cow_.groups()),
        sideFd_(workspace.beside().first) {}

  Expected<Sealed> seal(RootStub mayStay) {
    auto root = workspace_.open("", O_RDONLY | O_DIRECTORY);
    if (!root) return Failure(root.error());
    struct stat st = {};
    if (::fstat(root->get(), &st) != 0) return failErrno("stat");
    Status ok;
    if (const auto stub = cow_.stub(backingId(st)); !stub) {
      ok = walkOwn(root->get(), "");
    } else if (mayStay == RootStub::stays) {
      sealed_.stubs.push_back({"", stub->path, backingId(st)});
    } else {
      ok = ownLevel(root->get(), "", stub->path);
      keepTimes(root->get(), st);
    }
    if (ok) ok = ownReplaced();
    if (!ok) return Failure(ok.error());
    sealed_.links = links();
    removeSideFiles(workspace_);
    return std::move(sealed_);
  }

 private:
  Status walkOwn(int fd, const std::string& path) {
    auto names = directoryNames(fd);
    if (!names) return Failure(names.error());
    struct stat before = {};
    ::fstat(fd, &before);
    for (const std::string& name : *names) {
      struct stat st = {};
      if (::fstatat(fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return failErrno("stat");
      if (auto ok = meet(fd, path, name, st); !ok) return ok;
    }
    keepTimes(fd, before);
    return {};
  }

  static void keepTimes(int fd, const struct stat& before) {
    const struct timespec times[2] = {before.st_atim, before.st_mtim};
    ::futimens(fd, times);
  }

  Status meet(int fd, const std::string& path, const std::string& name, const struct stat& st) {
    const BackingId id = backingId(st);
    if (S_ISDIR(st.st_mode)) {
      auto child = openDirectory(fd, name);
      if (!child) return Failure(child.error());
      const auto stub = cow_.stub(id);
      if (!stub) return walkOwn(child->get(), pathBelow(path, name));
      sealed_.stubs.push_back({pathBelow(path, name), stub->path, id});
      return {};
    }
    if (const auto group = groups_.find(id);
        group != groups_.end() && !group->second.file.empty()) {
      return putInPlace(fd, name, group->second);
    }
    if (cow_.isShared(id)) {
      sealed_.shared.insert(id);
    } else if (st.st_nlink > 1) {
      ++ownLinks_[id];
    }
    return {};
  }

  /// A name that still leads to the snapshot's file gets the one that replaced it.
  Status putInPlace(int fd, const std::string& name, const CopyOnWrite::Group& group) {
    ++inPlace_;
    const std::string side = workspace_.beside().second + "seal";
    if (::linkat(sideFd_, group.file.c_str(), sideFd_, side.c_str(), 0) == 0 &&
        ::renameat(sideFd_, side.c_str(), fd, name.c_str()) == 0) {
      return {};
    }
    Failure failure = failErrno("put a changed file in place");
    ::unlinkat(sideFd_, side.c_str(), 0);
    return failure;
  }

  // Names of replaced files that are below stubs: those directories can't be taken over as they
  // are. Finding them is a walk over what the stubs stand for, so only where there must be some.
  Status ownReplaced() {
    size_t names = 0;
    for (const auto& [id, group] : groups_) names += group.file.empty() ? 0 : group.links;
    if (inPlace_ >= names) return {};
    std::vector<Sealed::Stub> stubs;
    stubs.swap(sealed_.stubs);
    for (const Sealed::Stub& stub : stubs) {
      auto found = holdsReplaced(stub.snapshot);
      if (!found) return Failure(found.error());
      if (!*found) {
        sealed_.stubs.push_back(stub);
        continue;
      }
      auto to = workspace_.open(stub.path, O_RDONLY | O_DIRECTORY);
      if (!to) return Failure(to.error());
      if (auto ok = ownBelow(to->get(), stub.path, stub.snapshot); !ok) return ok;
    }
    return {};
  }

  /// Whether a name of a replaced file is at or below the snapshot's directory `path`; remembers it
  /// of each directory on the way.
  Expected<bool> holdsReplaced(const std::string& path) {
    auto from = cow_.base()->open(path, O_RDONLY | O_DIRECTORY);
    if (!from) return Failure(from.error());
    auto names = directoryNames(from->get());
    if (!names) return Failure(names.error());
    bool holds = false;
    for (const std::string& name : *names) {
      struct stat st = {};
      if (::fstatat(from->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return failErrno("stat");
      }
      if (S_ISDIR(st.st_mode)) {
        auto inner = holdsReplaced(pathBelow(path, name));
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

  Status ownBelow(int to, const std::string& path, const std::string& snapshot) {
    if (auto ok = ownLevel(to, path, snapshot); !ok) return ok;
    auto from = cow_.base()->open(snapshot, O_RDONLY | O_DIRECTORY);
    if (!from) return Failure(from.error());
    return copyAttributes(from->get(), to);
  }

  /// One directory of the snapshot becomes the new tree's own; its subdirectories become stubs, but
  /// for those that hold replaced files as well.
  Status ownLevel(int to, const std::string& path, const std::string& snapshot) {
    auto from = cow_.base()->open(snapshot, O_RDONLY | O_DIRECTORY);
    if (!from) return Failure(from.error());
    auto names = directoryNames(from->get());
    if (!names) return Failure(names.error());
    for (const std::string& name : *names) {
      struct stat st = {};
      if (::fstatat(from->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return failErrno("stat");
      }
      if (!S_ISDIR(st.st_mode)) {
        if (auto ok = linkFile(from->get(), to, name, st); !ok) return ok;
        continue;
      }
      if (::mkdirat(to, name.c_str(), 0700) != 0) return failErrno("make a directory");
      auto child = openDirectory(to, name);
      if (!child) return Failure(child.error());
      if (replacedBelow_.count(pathBelow(snapshot, name)) != 0) {
        if (auto ok = ownBelow(child->get(), pathBelow(path, name), pathBelow(snapshot, name)); !ok)
          return ok;
        continue;
      }
      if (::fstat(child->get(), &st) != 0) return failErrno("stat");
      sealed_.stubs.push_back({pathBelow(path, name), pathBelow(snapshot, name), backingId(st)});
    }
    return {};
  }

  Status linkFile(int from, int to, const std::string& name, const struct stat& st) {
    const BackingId id = backingId(st);
    if (const auto group = groups_.find(id);
        group != groups_.end() && !group->second.file.empty()) {
      if (::linkat(sideFd_, group->second.file.c_str(), to, name.c_str(), 0) == 0) return {};
      return failErrno("put a changed file in place");
    }
    if (::linkat(from, name.c_str(), to, name.c_str(), 0) == 0) {
      sealed_.shared.insert(id);
      return {};
    }
    if (errno != EMLINK && errno != EPERM) return failErrno("link");
    const UniqueFd source(::openat(from, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!source.valid()) return failErrno("open " + inQuotes(name));
    return copyNode(source.get(), to, name);
  }

  /// The counts of the new tree follow from the snapshot's, if those are known.
  std::optional<LinkCounts> links() const {
    auto counts = cow_.base()->knownLinks();
    if (!counts) return std::nullopt;
    for (const auto& [id, group] : groups_) {
      counts->erase(id);
      if (group.links > 1) (*counts)[group.file.empty() ? id : group.id] = group.links;
    }
    for (const auto& [id, links] : ownLinks_) {
      if (links > 1) (*counts)[id] = links;
    }
    return counts;
  }

  Workspace& workspace_;
  const CopyOnWrite& cow_;
  const std::unordered_map<BackingId, CopyOnWrite::Group, HashBackingId> groups_;
  const int sideFd_;
  Sealed sealed_;
  size_t inPlace_ = 0;                   // names of replaced files that were met
  std::set<std::string> replacedBelow_;  // directories of the snapshot
  LinkCounts ownLinks_;
};

}  // namespace

Expected<Sealed> seal(Workspace& workspace, RootStub root) {
  return Sealer(workspace).seal(root);
}

void removeSideFiles(Workspace& workspace) {
  if (workspace.cow() == nullptr) return;
  for (const auto& [id, group] : workspace.cow()->groups()) {
    if (!group.file.empty()) ::unlinkat(workspace.beside().first, group.file.c_str(), 0);
  }
}

}  // namespace kilnfs
