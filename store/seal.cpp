#include "store/seal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>

#include "store/base/directory_names.h"
#include "store/copy_node.h"
#include "store/group_copy.h"

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
        stubs_(cow_.stubs()),
        groups_(cow_.groups()),
        sideFd_(workspace.beside().first) {
    for (const auto& [id, group] : groups_) {
      if (group.replaced()) copies_[group.id] = id;
    }
  }

  Expected<Sealed> seal(RootStub mayStay) {
    Status ok;
    // Names of a file that got a copy on the way may have been met before.
    do {
      found_ = false;
      sealed_ = {};
      placed_.clear();
      ownLinks_.clear();
      ok = pass(mayStay);
    } while (ok && found_);
    if (ok) ok = giveAttributes();
    if (!ok) return Failure(ok.error());
    sealed_.links = links();
    removeSideFiles(workspace_);
    return std::move(sealed_);
  }

 private:
  Status pass(RootStub mayStay) {
    auto root = workspace_.open("", O_RDONLY | O_DIRECTORY);
    if (!root) return Failure(root.error());
    struct stat st = {};
    if (::fstat(root->get(), &st) != 0) return failErrno("stat");
    Status ok;
    if (const auto stub = stubs_.find(backingId(st)); stub == stubs_.end()) {
      ok = walkOwn(root->get(), "");
    } else if (mayStay == RootStub::stays) {
      addStub("", stub->second.path, backingId(st), cow_.origin(backingId(st)));
    } else {
      ok = ownLevel(root->get(), "", std::string(stub->second.path));
      keepTimes(root->get(), st);
      stubs_.erase(backingId(st));
    }
    return ok ? ownReplaced() : ok;
  }

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
      const auto stub = stubs_.find(id);
      if (stub == stubs_.end()) {
        auto child = openDirectory(fd, name);
        if (!child) return Failure(child.error());
        return walkOwn(child->get(), pathBelow(path, name));
      }
      addStub(pathBelow(path, name), stub->second.path, id, cow_.origin(id));
      return {};
    }
    if (const auto copy = copies_.find(id); copy != copies_.end()) {
      ++placed_[copy->second];
      return {};
    }
    if (const auto group = groups_.find(id); group != groups_.end() && group->second.replaced()) {
      ++placed_[id];
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
    const bool all = std::all_of(groups_.begin(), groups_.end(), [this](const auto& each) {
      return !each.second.replaced() || placed_[each.first] >= each.second.links;
    });
    if (all) return {};
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
      stubs_.erase(stub.placeholder);
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
        holds = holds || (group != groups_.end() && group->second.replaced());
      }
    }
    if (holds) replacedBelow_.insert(path);
    return holds;
  }

  Status ownBelow(int to, const std::string& path, const std::string& snapshot) {
    madeOwn_[path] = snapshot;
    return ownLevel(to, path, snapshot);
  }

  /// Of the directories that ownBelow made own: not before the last pass has changed what is in
  /// them, and from the leaves up, since their modes may lock us out.
  Status giveAttributes() {
    for (auto it = madeOwn_.rbegin(); it != madeOwn_.rend(); ++it) {
      auto from = cow_.base()->open(it->second, O_RDONLY | O_DIRECTORY);
      if (!from) return Failure(from.error());
      auto to = workspace_.open(it->first, O_RDONLY | O_DIRECTORY);
      if (!to) return Failure(to.error());
      if (auto ok = copyAttributes(from->get(), to->get()); !ok) return ok;
    }
    return {};
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
      if (replacedBelow_.count(pathBelow(snapshot, name)) != 0) {
        auto child = openDirectory(to, name);
        if (!child) return Failure(child.error());
        if (auto ok = ownBelow(child->get(), pathBelow(path, name), pathBelow(snapshot, name)); !ok)
          return ok;
        continue;
      }
      const BackingId origin = cow_.base()->standsFor(backingId(st));
      if (::fstatat(to, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return failErrno("stat");
      addStub(pathBelow(path, name), pathBelow(snapshot, name), backingId(st), origin);
      stubs_[backingId(st)] = {pathBelow(snapshot, name), false};
      cow_.setOrigin(backingId(st), origin);  // for the next pass
    }
    return {};
  }

  void addStub(std::string path, std::string snapshot, const BackingId& placeholder,
               const BackingId& origin) {
    sealed_.stubs.push_back({std::move(path), std::move(snapshot), placeholder, origin});
  }

  Status linkFile(int from, int to, const std::string& name, const struct stat& st) {
    const BackingId id = backingId(st);
    if (const auto group = groups_.find(id); group == groups_.end() || !group->second.replaced()) {
      if (::linkat(from, name.c_str(), to, name.c_str(), 0) == 0) {
        sealed_.shared.insert(id);
        cow_.addShared(id);
        return {};
      }
      if (errno != EMLINK && errno != EPERM) return failErrno("link");
      const UniqueFd source(::openat(from, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
      if (!source.valid()) return failErrno("open " + inQuotes(name));
      auto names = namesOf(id, st);
      if (!names) return Failure(names.error());
      if (*names < 2) return copyNode(source.get(), to, name);
      if (auto ok = replace(id, source.get(), *names); !ok) return ok;
    }
    ++placed_[id];
    if (::linkat(sideFd_, groups_[id].file.c_str(), to, name.c_str(), 0) == 0) return {};
    return failErrno("put a changed file in place");
  }

  /// How many names a file of the snapshot has in the workspace.
  Expected<nlink_t> namesOf(const BackingId& id, const struct stat& st) const {
    if (const auto group = groups_.find(id); group != groups_.end()) return group->second.links;
    if (st.st_nlink < 2) return nlink_t{1};
    return cow_.base()->linksInside(id);
  }

  /// There are as many links to a file as the file system allows: a copy replaces it under all of
  /// its names, as if it had been changed. Else it would be two files from now on.
  Status replace(const BackingId& id, int source, nlink_t names) {
    // Not by the number of groups: a file whose names were counted is one already.
    const std::string file = fmt::format("{}links.{}", workspace_.beside().second, copies_.size());
    auto group = copyForAllNames(source, sideFd_, file, names);
    if (!group) return Failure(group.error());
    groups_[id] = *group;
    copies_[group->id] = id;
    cow_.setGroup(id, std::move(*group));  // with it the file goes in the end
    found_ = true;
    return {};
  }

  /// The counts of the new tree follow from the snapshot's, if those are known.
  std::optional<LinkCounts> links() const {
    auto counts = cow_.base()->knownLinks();
    if (!counts) return std::nullopt;
    for (const auto& [id, group] : groups_) {
      counts->erase(id);
      const auto placed = placed_.find(id);
      const nlink_t names = !group.replaced()         ? group.links
                            : placed != placed_.end() ? placed->second
                                                      : 0;
      if (names > 1) (*counts)[group.replaced() ? group.id : id] = names;
    }
    for (const auto& [id, links] : ownLinks_) {
      if (links > 1) (*counts)[id] = links;
    }
    return counts;
  }

  Workspace& workspace_;
  CopyOnWrite& cow_;
  std::unordered_map<BackingId, CopyOnWrite::Stub, HashBackingId> stubs_;  // those that are left
  std::unordered_map<BackingId, CopyOnWrite::Group, HashBackingId> groups_;
  std::unordered_map<BackingId, BackingId, HashBackingId> copies_;  // what they are copies of
  const int sideFd_;
  Sealed sealed_;
  LinkCounts placed_;                    // by what was replaced: names that are links to the copy
  bool found_ = false;                   // in this pass: one more that had to be replaced
  std::set<std::string> replacedBelow_;  // directories of the snapshot
  /// Directories made own while sealing, and which of the snapshot's they were. One sorts before
  /// those in it.
  std::map<std::string, std::string> madeOwn_;
  LinkCounts ownLinks_;
};

}  // namespace

Expected<Sealed> seal(Workspace& workspace, RootStub root) {
  return Sealer(workspace).seal(root);
}

void removeSideFiles(Workspace& workspace) {
  if (workspace.cow() == nullptr) return;
  for (const auto& [id, group] : workspace.cow()->groups()) {
    if (group.replaced()) ::unlinkat(workspace.beside().first, group.file.c_str(), 0);
  }
}

}  // namespace kilnfs
