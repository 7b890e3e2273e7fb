#include "store/overlay_upper.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cstring>
#include <optional>
#include <unordered_set>
#include <vector>

#include "store/copy_node.h"
#include "store/group_copy.h"
#include "store/overlay_index.h"
#include "store/overlay_xattr.h"
#include "store/tree/directory_stream.h"
#include "store/tree/system.h"

namespace kilnfs {
namespace {

std::string below(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "/" + name;
}

/// A path to an open directory that leads to it also where a symbolic link is not followed.
std::string pathTo(int directory) {
  return procPath(directory) + "/.";
}

/// An entry of a directory, as it was when all of them were listed.
struct Entry {
  std::string name;
  uint64_t ino;
  unsigned char type;
};

Expected<std::vector<Entry>> entriesOf(int fd) {
  UniqueFd own(::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!own.valid()) return failErrno("read a directory");
  std::vector<Entry> out;
  DirectoryStream stream(std::move(own));
  auto read = stream.read(0, [&](const DirectoryStream::Item& item) {
    if (std::strcmp(item.name, ".") != 0 && std::strcmp(item.name, "..") != 0) {
      out.push_back({item.name, item.ino, item.type});
    }
    return true;
  });
  if (!read) return Failure(read.error());
  return out;
}

class Translator {
 public:
  Translator(const UpperDirectory& upper, std::shared_ptr<Snapshot> base)
      : upper_(upper), base_(std::move(base)), cow_(std::make_unique<CopyOnWrite>(base_)) {}

  Expected<std::unique_ptr<CopyOnWrite>> run() {
    auto root = openDirectory(upper_.areaFd, upper_.name);
    if (!root) return Failure(root.error());
    auto index = OverlayIndex::read(upper_.areaFd, upper_.work, *base_);
    if (!index) return Failure(index.error());
    index_ = std::move(*index);
    auto entries = entriesOf(root->get());
    if (!entries) return Failure(entries.error());
    Status ok = entries->empty() ? untouched(root->get()) : walk(root->get(), "", "", *entries);
    if (ok) ok = settleGroups();
    if (!ok) {
      removeSides();
      return Failure(ok.error());
    }
    if (plain_ && index_.plain()) cow_->setPlainToOverlayfs();
    return std::move(cow_);
  }

 private:
  /// stripOverlay of what is to be a part of the tree.
  Expected<bool> strip(const std::string& path) {
    auto plain = stripOverlay(path);
    plain_ = plain_ && plain.value_or(false);
    return plain;
  }

  Expected<UniqueFd> openDirectory(int at, const std::string& name) const {
    UniqueFd fd(::openat(at, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid()) return failErrno("open " + inQuotes(name));
    return fd;
  }

  /// The root is still a stub: only its own attributes may have changed.
  Status untouched(int root) {
    auto origin = base_->open("", O_PATH | O_DIRECTORY);
    if (!origin) return Failure(origin.error());
    struct stat from = {};
    struct stat to = {};
    if (::fstat(origin->get(), &from) != 0 || ::fstat(root, &to) != 0) return failErrno("stat");
    cow_->addStub(backingId(to), {"", true}, base_->standsFor(backingId(from)));
    if (auto ok = strip(pathTo(root)); !ok) return Failure(ok.error());
    return {};
  }

  /// One directory of the upper layer, over the base's directory `lower`, if any.
  Status walk(int fd, const std::string& path, const std::optional<std::string>& lower,
              const std::vector<Entry>& entries) {
    struct stat before = {};
    if (::fstat(fd, &before) != 0) return failErrno("stat");
    const std::string at = pathTo(fd);
    std::unordered_set<std::string> covered;
    for (const Entry& entry : entries) {
      if (auto ok = meet(fd, at, path, lower, entry); !ok) return ok;
      if (lower) covered.insert(entry.name);
    }
    if (lower) {
      if (auto ok = complete(fd, path, *lower, covered); !ok) return ok;
    }
    if (auto ok = strip(at); !ok) return Failure(ok.error());
    // Making it complete is no change that anybody asked for.
    const struct timespec times[2] = {before.st_atim, before.st_mtim};
    if (::futimens(fd, times) != 0) return failErrno("set times");
    return {};
  }

  Status meet(int dir, const std::string& at, const std::string& path,
              const std::optional<std::string>& lower, const Entry& entry) {
    struct stat st = {};
    if (entry.type == DT_CHR || entry.type == DT_UNKNOWN) {
      if (::fstatat(dir, entry.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return failErrno("stat " + inQuotes(entry.name));
      }
      if (S_ISCHR(st.st_mode) && st.st_rdev == 0) {  // a white-out
        if (::unlinkat(dir, entry.name.c_str(), 0) != 0) return failErrno("remove a white-out");
        return {};
      }
    }
    if (entry.type == DT_DIR || S_ISDIR(st.st_mode)) {
      auto child = openDirectory(dir, entry.name);
      if (!child) return Failure(child.error());
      auto entries = entriesOf(child->get());
      if (!entries) return Failure(entries.error());
      auto under = lowerOf(child->get(), entry.name, lower);
      if (!under) return Failure(under.error());
      return walk(child->get(), below(path, entry.name), *under, *entries);
    }
    if (index_.addName(entry.ino, path, entry.name)) return {};
    // By each of its names, but what it was given back must stay.
    if (restored_.count(entry.ino) != 0) return {};
    const auto plain = strip(at + "/" + entry.name);
    if (!plain) return Failure(plain.error());
    if (!*plain) restored_.insert(entry.ino);
    return {};
  }

  /// The base's directory that a directory of the upper layer is merged with. That it can't be told
  /// is an error: without it the result would lack what is in there.
  Expected<std::optional<std::string>> lowerOf(int dir, const std::string& name,
                                               const std::optional<std::string>& parent) const {
    const std::string at = pathTo(dir);
    std::optional<std::string> lower;
    const auto opaque = overlayAttribute(at, "opaque");
    if (!opaque) return Failure(opaque.error());
    if (*opaque == "y") return lower;
    const auto redirect = overlayAttribute(at, "redirect");
    if (!redirect) return Failure(redirect.error());
    if (*redirect && (*redirect)->starts_with('/')) {
      lower = (*redirect)->substr(1);
    } else if (parent) {
      lower = below(*parent, redirect->value_or(name));
    }
    if (!lower) return lower;
    const auto there = base_->open(*lower, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (there) return lower;
    const int code = there.error().code;
    if (code != ENOENT && code != ENOTDIR && code != ELOOP) return Failure(there.error());
    return std::optional<std::string>();
  }

  /// Adds what the base's directory has and the upper one does not cover.
  Status complete(int to, const std::string& path, const std::string& lower,
                  const std::unordered_set<std::string>& covered) {
    auto from = base_->open(lower, O_RDONLY | O_DIRECTORY);
    if (!from) return Failure(from.error());
    struct stat dir = {};
    if (::fstat(from->get(), &dir) != 0) return failErrno("stat");
    auto entries = entriesOf(from->get());
    if (!entries) return Failure(entries.error());
    for (Entry& entry : *entries) {
      if (covered.count(entry.name) != 0) continue;
      struct stat st = {};
      if (entry.type == DT_UNKNOWN || entry.type == DT_DIR) {
        if (::fstatat(from->get(), entry.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
          return failErrno("stat " + inQuotes(entry.name));
        }
      }
      const BackingId id{entry.ino, backingId(dir).dev};
      Status ok = S_ISDIR(st.st_mode)
                      ? share(to, entry.name, below(lower, entry.name), backingId(st))
                      : link(from->get(), to, path, entry.name, id);
      if (!ok) return ok;
    }
    return {};
  }

  /// A directory that was not changed: a stub.
  Status share(int to, const std::string& name, const std::string& lower, const BackingId& found) {
    struct stat st = {};
    if (::mkdirat(to, name.c_str(), 0700) != 0) return failErrno("make a directory");
    if (::fstatat(to, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      return failErrno("make a directory");
    }
    cow_->addStub(backingId(st), {lower, false}, base_->standsFor(found));
    return {};
  }

  /// A file that was not changed, or only under another of its names.
  Status link(int from, int to, const std::string& path, const std::string& name,
              const BackingId& id) {
    if (const auto changed = index_.changed(id)) {
      if (::linkat(index_.fd(), changed->c_str(), to, name.c_str(), 0) != 0) {
        return failErrno("link " + inQuotes(name));
      }
      index_.addName(id, path, name);
      return {};
    }
    if (::linkat(from, name.c_str(), to, name.c_str(), 0) == 0) {
      cow_->addShared(id);
      return {};
    }
    if (errno != EMLINK && errno != EPERM) return failErrno("link " + inQuotes(name));
    const UniqueFd source(::openat(from, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!source.valid()) return failErrno("open " + inQuotes(name));
    const auto names = base_->linksInside(id);
    if (!names) return Failure(names.error());
    if (*names > 1) return linkToCopy(id, *names, source.get(), to, name);
    if (auto ok = copyNode(source.get(), to, name); !ok) return ok;
    struct stat copy = {};
    if (::fstatat(to, name.c_str(), &copy, AT_SYMLINK_NOFOLLOW) != 0) return failErrno("stat");
    cow_->setOrigin(backingId(copy), id);
    return {};
  }

  /// There are as many links to the base's file as the file system allows: all of its names stand
  /// for a copy, those that were linked before as well.
  Status linkToCopy(const BackingId& id, nlink_t names, int source, int to,
                    const std::string& name) {
    auto group = cow_->group(id);
    if (!group) {
      auto made = copyForAllNames(source, upper_.areaFd, nextSide(), names);
      if (!made) return Failure(made.error());
      group = std::move(*made);
      sides_.push_back(group->file);
      cow_->setGroup(id, *group);
    }
    if (::linkat(upper_.areaFd, group->file.c_str(), to, name.c_str(), 0) != 0) {
      return failErrno("link " + inQuotes(name));
    }
    return {};
  }

  std::string nextSide() const { return fmt::format("{}overlay.{}", upper_.side, sides_.size()); }

  // -- files with several names in the base that were changed

  /// Names that nobody looked at are below stubs, out of reach: for such a file all names stay the
  /// base's, and stand for the new file, which is kept beside the tree.
  Status settleGroups() {
    if (index_.empty()) return {};
    for (const auto& [placeholder, stub] : cow_->stubs()) {
      if (auto ok = index_.countBelow(*base_, stub.path); !ok) return ok;
    }
    for (const OverlayIndex::File& file : index_.files()) {
      if (file.namesBelowStubs == 0) continue;
      CopyOnWrite::Group group;
      group.file = nextSide();
      group.id = file.id;
      group.links = static_cast<nlink_t>(file.namesBelowStubs + file.names.size());
      if (::renameat(index_.fd(), file.entry.c_str(), upper_.areaFd, group.file.c_str()) != 0) {
        return failErrno("keep a changed file");
      }
      sides_.push_back(group.file);
      for (const auto& [path, name] : file.names) {
        if (auto ok = putBack(path, name, file); !ok) return ok;
      }
      cow_->addShared(file.origin);
      cow_->setGroup(file.origin, std::move(group));
    }
    return {};
  }

  /// Makes a name lead to the base's file.
  Status putBack(const std::string& path, const std::string& name, const OverlayIndex::File& file) {
    const TreeRoot tree(upper_.areaFd, "", upper_.name, "");
    auto dir = tree.open(path, O_RDONLY | O_DIRECTORY);
    if (!dir) return Failure(dir.error());
    struct stat before = {};
    if (::fstat(dir->get(), &before) != 0) return failErrno("stat");
    const std::string side = upper_.side + "link";
    if (::linkat(AT_FDCWD, procPath(file.lower.get()).c_str(), upper_.areaFd, side.c_str(),
                 AT_SYMLINK_FOLLOW) != 0 ||
        ::renameat(upper_.areaFd, side.c_str(), dir->get(), name.c_str()) != 0) {
      const bool full = errno == EMLINK;
      const Failure failure = failErrno("link " + inQuotes(name));
      ::unlinkat(upper_.areaFd, side.c_str(), 0);
      if (full) return {};  // it leads to the changed file, for which the base's would stand
      return failure;
    }
    const struct timespec times[2] = {before.st_atim, before.st_mtim};
    ::futimens(dir->get(), times);
    return {};
  }

  void removeSides() {
    for (const std::string& side : sides_) ::unlinkat(upper_.areaFd, side.c_str(), 0);
  }

  const UpperDirectory& upper_;
  const std::shared_ptr<Snapshot> base_;
  std::unique_ptr<CopyOnWrite> cow_;
  OverlayIndex index_;
  std::vector<std::string> sides_;
  bool plain_ = true;  // so far
  std::unordered_set<uint64_t> restored_;
};

}  // namespace

Expected<std::unique_ptr<CopyOnWrite>> translateUpper(const UpperDirectory& upper,
                                                      const std::shared_ptr<Snapshot>& base) {
  return Translator(upper, base).run();
}

}  // namespace kilnfs
