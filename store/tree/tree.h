// A snapshot or workspace as a POSIX tree: operations on inodes, without kernel or FUSE types.
//
// Snapshots answer EROFS to every change, frozen workspaces ESTALE. What is in a frozen workspace
// can't be reached any more either, but files that are open can be read on. Symbolic links are
// never followed, names never leave the tree. Thread-safe; calls block only as the disk does.
//
// A workspace over a snapshot is copy on write (store/copy_on_write.h): tree_cow.cpp makes what
// is changed its own before the change.
//
// Locks, in this order: the workspace's gate (a Change), names_, inodes_. Reading and writing data
// takes none but the gate. names_ is held over the system calls of one operation: shared while a
// name is resolved, exclusively while names are moved or removed, so that a path stays true while
// it is used. It is not held while a file is copied to be changed.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "store/base/pointer_table.h"
#include "store/copy_on_write.h"
#include "store/snapshot.h"
#include "store/tree/directory_cache.h"
#include "store/tree/file.h"
#include "store/tree/identity.h"
#include "store/tree/inode.h"
#include "store/tree/side_copy.h"
#include "store/workspace.h"

namespace kilnfs {

/// What setattr changes; the rest stays as it is.
struct SetAttributes {
  std::optional<mode_t> mode;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<off_t> size;
  std::optional<struct timespec> atime, mtime;  // tv_nsec may be UTIME_NOW
  bool clearSetId = false;                      // with a size: as writing to it would
};

class Tree : public std::enable_shared_from_this<Tree> {
 public:
  struct Entry {
    InodePtr inode;
    struct stat attributes;
  };
  struct Created {
    Entry entry;
    std::unique_ptr<File> file;
  };

  /// `outerIno` is the inode number that ".." has in the tree's root.
  static std::shared_ptr<Tree> create(std::shared_ptr<Snapshot> snapshot, uint64_t outerIno);
  static std::shared_ptr<Tree> create(std::shared_ptr<Workspace> workspace, uint64_t outerIno);
  ~Tree();

  bool readOnly() const { return workspace_ == nullptr; }
  /// What was true of it may be so no more, though it was not changed through this object.
  bool changedElsewhere() const { return workspace_ && workspace_->changedElsewhere(); }
  /// True once changes and new look-ups are refused.
  bool frozen() const { return workspace_ && workspace_->frozen(); }

  /// As TreeRoot::key.
  const std::string& key() const { return place_.key(); }
  /// Whether it is the tree's root.
  bool isRoot(const Inode& inode) const;
  uint64_t outerIno() const { return outerIno_; }

  // -- names. ENAMETOOLONG, ENOENT, ENOTDIR as for the system calls.

  Expected<Entry> root();
  Expected<Entry> lookup(Inode& parent, const std::string& name);
  /// Any type but directories, symbolic links.
  Expected<Entry> mknod(Inode& parent, const std::string& name, mode_t mode, dev_t device,
                        const Creator& creator);
  Expected<Entry> mkdir(Inode& parent, const std::string& name, mode_t mode,
                        const Creator& creator);
  Expected<Entry> symlink(Inode& parent, const std::string& name, const std::string& target,
                          const Creator& creator);
  /// EXDEV: `inode` is of another tree.
  Expected<Entry> link(Inode& inode, Inode& parent, const std::string& name);
  /// `flags`: RENAME_NOREPLACE or RENAME_EXCHANGE; EINVAL for others. EXDEV: not one tree.
  Status rename(Inode& parent, const std::string& name, Inode& newParent,
                const std::string& newName, unsigned flags);
  Status unlink(Inode& parent, const std::string& name);
  Status rmdir(Inode& parent, const std::string& name);

  // -- directories: nothing is open between two calls

  using Item = DirectoryStream::Item;
  /// Gives the items from the cookie `from` on (0: the start) to `fn` until that says false: the
  /// item was not taken. "." and ".." are among them, `ino` is as lookup() of the name will say.
  /// What is made or removed meanwhile neither hides nor repeats the others. `fn` must not call
  /// back.
  Status readDirectory(Inode& directory, off_t from, const std::function<bool(const Item&)>& fn);
  Status syncDirectory(Inode& directory);

  // -- files

  /// `flags` as for open(2), of a regular file that exists. `mayKeepSuid`: O_TRUNC leaves
  /// set-id bits alone (the caller is privileged).
  Expected<std::unique_ptr<File>> open(Inode& inode, int flags, bool mayKeepSuid);
  /// Opens or makes a regular file; EEXIST with O_EXCL.
  Expected<Created> create(Inode& parent, const std::string& name, int flags, mode_t mode,
                           const Creator& creator);
  /// Makes a regular file that has no name yet, and with O_EXCL never will: O_TMPFILE. EOPNOTSUPP
  /// where the file system below can't.
  Expected<Created> createUnnamed(Inode& parent, int flags, mode_t mode, const Creator& creator);
  Expected<std::string> readlink(Inode& inode);
  /// Whether an open file of the inode is for good the file on disk that it is now, and need not be
  /// read and written through us.
  bool mayBypass(const Inode& inode) const;
  /// Whether somebody may be writing to the file through a mapping, though it is closed.
  bool mappedForWriting(const Inode& inode) const;

  // -- attributes. With `file`, an open file of the inode, they go through it.

  Expected<struct stat> getattr(Inode& inode, const File* file = nullptr);
  Expected<struct stat> setattr(Inode& inode, const SetAttributes& wanted,
                                const File* file = nullptr);
  Expected<std::string> getxattr(Inode& inode, const std::string& name);
  Expected<std::vector<std::string>> listxattr(Inode& inode);
  /// `flags`: 0, XATTR_CREATE or XATTR_REPLACE.
  Status setxattr(Inode& inode, const std::string& name, const std::string& value, int flags);
  Status removexattr(Inode& inode, const std::string& name);
  Expected<struct statvfs> statfs(Inode& inode);

  // -- inode numbers: a bijection of those on disk, another one in each tree

  uint64_t visibleIno(const BackingId& backing) const;
  /// Of an entry of `parent` that has `ino` on disk.
  uint64_t visibleIno(const Inode& parent, uint64_t ino) const;
  /// What ".." has in a directory.
  uint64_t parentIno(const Inode& directory) const;
  /// What the root of a tree of `key` has.
  static uint64_t rootIno(const std::string& key);

  ListingUse& listingUse() { return listingUse_; }

  /// Known inodes, for metrics and tests.
  size_t knownInodes() const;

 private:
  friend void intrusive_ptr_release(Inode* inode);
  friend class File;
  struct Opened {
    UniqueFd fd;
    struct stat attributes;  // as on disk
  };
  struct ByBacking {
    using Key = BackingId;
    static Key key(const Inode& inode) { return inode.backing(); }
    static size_t hash(const Key& id) { return HashBackingId()(id); }
  };

  Tree(std::shared_ptr<Snapshot> snapshot, std::shared_ptr<Workspace> workspace, uint64_t outerIno);

  struct Location {
    const TreeRoot* root;  // the workspace, or the snapshot that it lies over
    std::string path;      // below that
  };

  // Where an inode's backing file is: the only place that knows. Takes no lock but inodes_; names_
  // is held (shared) by the caller, or the inode can't move.
  Expected<Opened> openBacking(const Inode& inode, int flags) const;
  static Expected<Opened> asOpened(Expected<UniqueFd> fd);
  Expected<DirectoryRef> openParent(const Inode& parent) const;
  std::optional<Opened> openInParent(const Inode& inode, int flags) const;
  /// The attributes on disk.
  Expected<struct stat> statBacking(const Inode& inode) const;
  /// Where the inode's first name is, if it is in a directory on disk under that name.
  std::optional<std::pair<DirectoryRef, std::string>> placeOf(const Inode& inode) const;
  std::vector<Location> locations(const Inode& inode) const;
  std::shared_ptr<UniqueFd> keptFd(const Inode& inode) const;
  bool locate(const Inode& inode, Location& at) const;
  /// Whether what openBacking found is what the inode stands for.
  bool standsFor(const Inode& inode, const struct stat& st) const;

  // Copy on write (tree_cow.cpp). All take names_ themselves, exclusively where something has to be
  // made own; what is own stays own.
  Status ownDirectory(Inode& inode);
  /// How many bytes of a file's content will be wanted. A copy of no more is opened before it takes
  /// the file's place, as whoever cuts it will have to: then it would be too late to fail.
  struct Cut {
    uint64_t keep;
    int flags;    // to open it with
    UniqueFd fd;  // of the copy, if one was made
  };
  Status ownFile(Inode& inode, Cut* cut = nullptr);
  Status own(Inode& inode, Cut* cut = nullptr) {
    return inode.isDirectory() ? ownDirectory(inode) : ownFile(inode, cut);
  }
  /// Of a shared file that is open for reading, to be moved to its copy; and of any that is open
  /// where others change the tree, whose names may be gone when it is looked at.
  void addOpen(const File& file);
  void removeOpen(const File& file);
  bool noticesOpen(const Inode& inode, bool writable) const {
    return changedElsewhere() || (!writable && isShared(inode));
  }
  Expected<struct stat> statOpen(const Inode& inode) const;
  bool isOwn(const Inode& directory) const;
  bool isShared(const Inode& file) const;
  bool belowStub(const Inode& inode) const;
  /// The time of change that a shared file shows, which is open as `fd`.
  struct timespec changeTimeOf(const Inode& inode, int fd) const;
  /// Tells that what `st` is of was changed by somebody.
  void changed(const struct stat& st) {
    if (cow_ != nullptr) cow_->changed(backingId(st));
  }
  Status fillStub(Inode& inode);
  Status showAs(const BackingId& id, int from, int to);
  /// What a stub that becomes own has got so far.
  struct Filled {
    struct Name {
      std::string name;
      bool directory;
      BackingId original;   // in the snapshot
      BackingId now;        // the same, if it is a link to it or to what replaced it
      UniqueFd forReaders;  // see openForReaders
    };
    std::vector<Name> names;
    std::vector<off_t> cookies;  // of the snapshot's listing
  };
  Status fillFrom(int from, int to, const std::string& path, Filled& filled);
  Expected<Filled::Name> shareDirectory(int from, int to, const std::string& path,
                                        const std::string& name);
  Expected<Filled::Name> shareFile(int from, int to, const std::string& name);
  Expected<Filled::Name> followCopy(int to, const std::string& name, const struct stat& st);
  void emptyAgain(int to, const Filled& filled);
  void followTo(const Filled::Name& made, const Inode& parent);
  Expected<Opened> openShared(const Inode& file) const;
  Expected<SideCopy> copyAside(int from, Cut* cut) const;
  Status copyUp(Inode& inode, const Opened& from, SideCopy copy);
  Status putInPlace(const Inode& inode, SideCopy& copy);
  Status replaceGroup(const BackingId& file, int from, SideCopy copy);
  Expected<bool> hasSeveralNames(const BackingId& file, const struct stat& st) const;
  Status linkToCopy(const BackingId& file, int from, int to, const std::string& name);
  void becomes(Inode& inode, const BackingId& now);
  Expected<UniqueFd> openForReaders(const Inode& inode, int to) const;
  void moveReaders(Inode& inode, const UniqueFd& copy);
  CopyOnWrite::Group groupOf(const BackingId& file) const;
  void countName(const Inode* inode, const struct stat& st, int change);
  Status refuseFullStub(const struct stat& st) const;
  /// The copy that stands for all names of the inode; nothing if there is none.
  std::optional<Expected<UniqueFd>> openReplaced(const Inode& inode, int flags) const;
  Expected<UniqueFd> openPlaceholder(const Inode& inode, int flags) const;
  void showPlaceholder(const Inode& inode, struct stat& st) const;

  // Listings (tree_listing.cpp).
  std::shared_ptr<const FormerListing> formerListing(const Inode& directory) const;
  void rememberListing(Inode& directory, std::string path, std::vector<off_t> cookies);
  Status readOn(Inode& directory, const FormerListing& former, const DirectoryRef& now, off_t from,
                const std::function<bool(const Item&)>& fn);
  uint64_t listedIno(const Inode& directory, const Item& onDisk) const;

  Expected<Workspace::Change> beginChange() const;
  /// What making something in a directory holds until it is done.
  struct Making {
    Workspace::Change change;
    std::shared_lock<std::shared_mutex> names;
    DirectoryRef dir;  // where it is made, own
  };
  Expected<Making> beginMaking(Inode& parent);
  /// `make`: of the directory's descriptor and a CreateAs; 0, or not with errno set.
  template <class Make>
  Expected<Entry> makeNamed(Inode& parent, const std::string& name, const Creator& creator,
                            Make make);
  Status refuseFrozen() const;
  Expected<Entry> enter(int parentFd, Inode& parent, const std::string& name);

  /// `made`: just now, so that an inode known by that number is of a former file, unless it has
  /// been looked up by this name meanwhile.
  InodePtr intern(const struct stat& st, Inode* parent, const std::string& name, bool made = false);
  InodePtr find(const BackingId& backing);
  /// The file or directory that is known by what was found on disk.
  BackingId canonical(const BackingId& id) const;
  void addName(Inode& inode, Inode& parent, const std::string& name);
  static bool hasName(const Inode& inode, const Inode* parent, const std::string& name);
  Created asCreated(UniqueFd fd, const struct stat& st, InodePtr inode, bool writable);
  /// Reaches a file that has no name by `fd` (O_PATH) from now on.
  void hold(Inode& inode, std::shared_ptr<UniqueFd> fd);
  void holdLocked(Inode& inode, std::shared_ptr<UniqueFd> fd);  // with inodes_ held
  void removeName(Inode& inode, const Inode& parent, const std::string& name,
                  std::shared_ptr<UniqueFd> kept);
  bool isLastName(const Inode& inode, const Inode& parent, const std::string& name) const;
  Status remove(Inode& parent, const std::string& name, bool directory);
  /// A name for the file or directory was removed from disk.
  void gone(const InodePtr& inode, const struct stat& st);
  void renamed(const InodePtr& moved, Inode& from, const std::string& name, Inode& to,
               const std::string& newName);
  /// What removeName() takes. Who can't keep a file that is open somewhere must not remove its
  /// name.
  Expected<std::shared_ptr<UniqueFd>> keepIfLast(const InodePtr& inode, int parentFd,
                                                 const Inode& parent,
                                                 const std::string& name) const;

  /// What a stat of the inode's file on disk is in this tree.
  struct stat seen(struct stat st, const Inode& inode) const;
  nlink_t linksNow(const struct stat& st, const Inode& inode) const;

  const std::shared_ptr<Snapshot> snapshot_;  // one of the two
  const std::shared_ptr<Workspace> workspace_;
  const TreeRoot& place_;
  CopyOnWrite* const cow_;  // null: nothing is shared
  const uint64_t salt_;
  const uint64_t outerIno_;
  mutable std::shared_mutex names_;
  mutable std::mutex inodes_;
  PointerTable<Inode, ByBacking> known_;  // guarded by inodes_
  std::atomic<uint32_t> rootDev_{0};      // 0: not known yet
  std::atomic<uint64_t> rootIno_{0};      // as it is known on disk
  ListingUse listingUse_;
};

}  // namespace kilnfs
