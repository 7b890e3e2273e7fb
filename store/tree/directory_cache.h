// Directories of trees that are kept open, so that a request on a name costs one system call on the
// directory and no walk to it. Bounded: the least recently used is closed first, so that known
// inodes hold no descriptors, and what nobody has used for a while is closed. Thread-safe.
//
// A descriptor follows its directory wherever that is moved. What makes an inode stand for another
// directory (a stub that becomes own) must drop it, under names_ held exclusively; users hold
// names_ while they use it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "store/tree/directory_stream.h"

namespace kilnfs {

class Inode;

/// An open directory, held by whoever uses it right now, and by the cache.
class OpenDirectory {
 public:
  explicit OpenDirectory(UniqueFd fd, bool readable)
      : stream_(std::move(fd)), readable_(readable) {}
  int fd() const { return stream_.fd(); }
  /// Whether its descriptor may be read from: not so where only searching is allowed.
  bool readable() const { return readable_; }
  DirectoryStream& stream() { return stream_; }

 private:
  DirectoryStream stream_;
  const bool readable_;
};

/// What a function gets that works in a directory.
class DirectoryRef {
 public:
  explicit DirectoryRef(std::shared_ptr<OpenDirectory> open) : open_(std::move(open)) {}
  int get() const { return open_->fd(); }
  OpenDirectory& open() const { return *open_; }
  /// Says that names in it were made or removed: what was read ahead is not right any more.
  void changed() const { open_->stream().expire(); }

 private:
  std::shared_ptr<OpenDirectory> open_;
};

class DirectoryCache {
 public:
  explicit DirectoryCache(size_t limit) : limit_(limit) {}
  /// The one of this process: the bound is on descriptors, which all trees share. A thread of its
  /// own calls closeUnused() every second while there is something in it.
  static DirectoryCache& ofProcess();

  std::shared_ptr<OpenDirectory> find(const Inode& directory);
  void put(const Inode& directory, std::shared_ptr<OpenDirectory> open);
  void drop(const Inode& directory);
  /// Closes those that have not been used since the last call.
  void closeUnused();
  size_t size() const;

 private:
  struct Kept {
    const Inode* directory;
    std::shared_ptr<OpenDirectory> open;
    uint64_t used;  // the period it was used in last
  };
  void closeUnusedForever();

  const size_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable filled_;
  std::list<Kept> recent_;  // the latest first; guarded by mutex_, as what follows
  uint64_t period_ = 0;
  std::unordered_map<const Inode*, std::list<Kept>::iterator> where_;
};

}  // namespace kilnfs
