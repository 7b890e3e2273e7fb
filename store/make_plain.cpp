#include "store/make_plain.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "store/base/directory_names.h"
#include "store/copy_node.h"

namespace kilnfs {
namespace {

class PlainMaker {
 public:
  PlainMaker(const MakePlain& what, Interrupt& interrupt)
      : what_(what),
        interrupt_(interrupt),
        to_(what.area.fd.get(), what.area.path, what.name, what.from.key()),
        known_(what.from.knownLinks()) {}

  Status make() {
    if (::mkdirat(what_.area.fd.get(), what_.name.c_str(), 0700) != 0) {
      return failErrno("make " + what_.area.path + "/" + what_.name);
    }
    // No descriptor is held over a directory's subdirectories: trees can be very deep.
    directories_.emplace_back();
    for (size_t i = 0; i < directories_.size(); ++i) {
      if (auto ok = fill(std::string(directories_[i])); !ok) return ok;
    }
    if (auto ok = countLinks(); !ok) return ok;
    // Last, since making what is in a directory changes its times, and from the leaves up, since
    // its mode may lock us out.
    for (auto path = directories_.rbegin(); path != directories_.rend(); ++path) {
      if (auto ok = finish(*path); !ok) return ok;
    }
    return {};
  }

  /// None if they could not be had without a walk.
  std::optional<LinkCounts> links() { return std::move(links_); }

 private:
  Status fill(const std::string& path) {
    if (interrupt_.raised()) return fail(EINTR, "interrupted");
    const auto from = what_.from.open(path, O_RDONLY | O_DIRECTORY);
    if (!from) return Failure(from.error());
    const auto to = to_.open(path, O_RDONLY | O_DIRECTORY);
    if (!to) return Failure(to.error());
    const auto names = directoryNames(from->get());
    if (!names) return Failure(names.error());
    const Snapshot::Place place = what_.from.resolve(path);
    for (const std::string& name : *names) {
      struct stat st = {};
      if (::fstatat(from->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return failErrno("stat");
      }
      if (S_ISDIR(st.st_mode)) {
        if (::mkdirat(to->get(), name.c_str(), 0700) != 0) return failErrno("make a directory");
        directories_.push_back(pathBelow(path, name));
        continue;
      }
      if (auto ok = fillFile(from->get(), to->get(), path, name, st, place); !ok) return ok;
    }
    return {};
  }

  Status fillFile(int from, int to, const std::string& path, const std::string& name,
                  const struct stat& st, const Snapshot::Place& place) {
    if (known_ && known_->count(backingId(st)) != 0) ++met_[backingId(st)];
    const bool here = place.snapshot.get() == &what_.from;
    const bool own = here && what_.shared.count(backingId(st)) == 0;
    return own || what_.mode != Mode::copy ? linkOrCopy(from, to, path, name, st)
                                           : copy(from, to, path, name, st);
  }

  Status linkOrCopy(int from, int to, const std::string& path, const std::string& name,
                    const struct stat& st) {
    const BackingId id = backingId(st);
    // With room for links again, a name must not go back to the file that the others have left.
    if (const auto made = copies_.find(id); made != copies_.end()) {
      return linkTo(made->second, to, name);
    }
    if (::linkat(from, name.c_str(), to, name.c_str(), 0) == 0) {
      return linkedKnown_ ? remember(path, name, st) : Status();
    }
    // As many links as the file system allows, or none allowed.
    if (errno != EMLINK && errno != EPERM) return failErrno("link");
    if (auto ok = copy(from, to, path, name, st); !ok) return ok;
    return copies_.count(id) != 0 ? replaceLinks(id, to, name) : Status();
  }

  /// Counting is a walk over the snapshot: only where the count on disk allows for a second name.
  Expected<bool> isOneOfSeveral(const struct stat& st) const {
    if (st.st_nlink < 2) return false;
    const auto names = what_.from.linksInside(backingId(st));
    return names ? Expected<bool>(*names > 1) : Failure(names.error());
  }

  /// A copy, or a link to the copy that another name of the same file has been given.
  Status copy(int from, int to, const std::string& path, const std::string& name,
              const struct stat& st) {
    const auto several = isOneOfSeveral(st);
    if (!several) return Failure(several.error());
    if (*several) {
      const auto [it, first] = copies_.try_emplace(backingId(st), Name{path, name});
      if (!first) return linkTo(it->second, to, name);
    }
    const UniqueFd source(::openat(from, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!source.valid()) return failErrno("open " + inQuotes(name));
    return copyNode(source.get(), to, name);
  }

  struct Name {
    std::string directory, name;  // in the new tree
  };
  Status linkTo(const Name& made, int to, const std::string& name) {
    const auto directory = to_.open(made.directory, O_PATH | O_DIRECTORY);
    if (!directory) return Failure(directory.error());
    if (::linkat(directory->get(), made.name.c_str(), to, name.c_str(), 0) != 0) {
      return failErrno("link to a copy");
    }
    return {};
  }

  /// The names in the new tree that are links to the file `id` become links to its copy, which is
  /// `copy` in `dir`. Else it would be two files from now on.
  Status replaceLinks(const BackingId& id, int dir, const std::string& copy) {
    if (auto ok = linkedKnown_ ? Status() : findLinked(); !ok) return ok;
    const auto [sideFd, prefix] = to_.beside();
    const std::string side = prefix + "link";
    for (const Name& each : linked_[id]) {
      const auto in = to_.open(each.directory, O_PATH | O_DIRECTORY);
      if (!in) return Failure(in.error());
      if (::linkat(dir, copy.c_str(), sideFd, side.c_str(), 0) != 0) {
        return failErrno("link to a copy");
      }
      if (::renameat(sideFd, side.c_str(), in->get(), each.name.c_str()) != 0) {
        const Failure failure = failErrno("replace " + inQuotes(each.name));
        ::unlinkat(sideFd, side.c_str(), 0);
        return failure;
      }
    }
    linked_.erase(id);
    return {};
  }

  Status remember(const std::string& directory, const std::string& name, const struct stat& st) {
    const auto several = isOneOfSeveral(st);
    if (!several) return Failure(several.error());
    if (*several) linked_[backingId(st)].push_back({directory, name});
    return {};
  }

  /// What has been linked is remembered from the first time on that somebody asks for it, which is
  /// hardly ever.
  Status findLinked() {
    for (const std::string& path : directories_) {
      const auto in = to_.open(path, O_RDONLY | O_DIRECTORY);
      if (!in) return Failure(in.error());
      const auto names = directoryNames(in->get());
      if (!names) return Failure(names.error());
      for (const std::string& name : *names) {
        struct stat st = {};
        if (::fstatat(in->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
          return failErrno("stat");
        }
        if (S_ISDIR(st.st_mode)) continue;
        if (auto ok = remember(path, name, st); !ok) return ok;
      }
    }
    linkedKnown_ = true;
    return {};
  }

  Status finish(const std::string& path) {
    if (interrupt_.raised()) return fail(EINTR, "interrupted");
    const auto from = what_.from.open(path, O_RDONLY | O_DIRECTORY);
    if (!from) return Failure(from.error());
    const auto to = to_.open(path, O_RDONLY | O_DIRECTORY);
    if (!to) return Failure(to.error());
    return copyAttributes(from->get(), to->get());
  }

  /// Counts go by inode numbers: a link keeps its file's, and a copy, for which all names stand,
  /// has one of its own.
  Status countLinks() {
    if (!known_) return {};
    links_.emplace();
    for (const auto& [id, names] : met_) {
      if (names < 2) continue;
      const auto copy = copies_.find(id);
      if (copy == copies_.end()) {
        links_->emplace(id, names);
        continue;
      }
      const auto in = to_.open(copy->second.directory, O_PATH | O_DIRECTORY);
      if (!in) return Failure(in.error());
      struct stat st = {};
      if (::fstatat(in->get(), copy->second.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return failErrno("stat");
      }
      links_->emplace(backingId(st), names);
    }
    return {};
  }

  const MakePlain& what_;
  Interrupt& interrupt_;
  const TreeRoot to_;
  std::vector<std::string> directories_;  // all of the tree; those not filled yet at the end
  std::unordered_map<BackingId, Name, HashBackingId> copies_;
  /// Names of files with several that are links to those; of all so far, if linkedKnown_.
  std::unordered_map<BackingId, std::vector<Name>, HashBackingId> linked_;
  bool linkedKnown_ = false;
  const std::optional<LinkCounts> known_;  // the snapshot's, or those of what it was made from
  LinkCounts met_;                         // of these
  std::optional<LinkCounts> links_;
};

}  // namespace

Expected<std::optional<LinkCounts>> makePlain(const MakePlain& what, Interrupt& interrupt) {
  PlainMaker maker(what, interrupt);
  if (auto ok = maker.make(); !ok) return Failure(ok.error());
  return maker.links();
}

}  // namespace kilnfs
