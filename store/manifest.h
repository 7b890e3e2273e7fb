// What a result was when it was sealed: a file of text, one line for each entry of the tree in the
// order of TreeWalk, closed by a line with the SHA-256 of what is before it.
//
//   kilnfs-manifest 1 CREATED RECORDED     the result's time in the database; when this was written
//   d 755 0 0 1700000000.123456789 - NAME [XATTR=HEX]...      a directory; what is in it; then
//   u                                                          its end
//   f 644 0 0 1700000000.000000000 SIZE:SHA256 NAME            a file
//   h N NAME                               another name of the entry number N (the root is 0)
//   l ... TARGET NAME   c ... MAJOR:MINOR NAME   b   p   s     links, devices, fifos, sockets
//   end ENTRIES SHA256
//
// Bytes of names, targets and attributes that are no printable ASCII, backslashes, "=" and blanks
// are written as \xNN. "?" instead of a content: the daemon had no right to read it.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "store/backing_id.h"
#include "store/base/interrupt.h"
#include "store/build/digest.h"
#include "store/tree_walk.h"

namespace kilnfs {

struct ManifestEntry {
  char type = 'u';
  std::string name;
  mode_t mode = 0;  // without the type
  uid_t uid = 0;
  gid_t gid = 0;
  std::string modified = {};                                     // "SECONDS.NANOSECONDS"
  std::string content = {};                                      // as written, unescaped
  uint64_t linkTo = 0;                                           // of 'h'
  std::vector<std::pair<std::string, std::string>> xattrs = {};  // sorted

  std::string line() const;
  static Expected<ManifestEntry> parse(const std::string& line);
};

/// Makes entries of a tree's items, in their order.
class Describer {
 public:
  /// The content of a file, where it is known without reading it: `path` below the root.
  using KnownContent =
      std::function<std::optional<std::string>(const std::string& path, const struct stat& st)>;

  /// Reads what the file holds. ENOENT and the like if the tree changes; EINTR; a file that can't
  /// be read for want of rights has the content "?"; EIO and others: `path` is in the message.
  Expected<ManifestEntry> describe(const TreeWalk::Item& item, const std::string& path,
                                   Interrupt& interrupt);
  void setKnown(KnownContent known) { known_ = std::move(known); }
  /// Directories and files of any type, each as often as it has names.
  uint64_t entries() const { return entries_; }
  /// Space of what was described, each file once.
  uint64_t bytes() const { return bytes_; }

  /// A file with more than one name on disk.
  struct Linked {
    uint64_t number;  // of the entry that has its content
    uint64_t bytes;
    nlink_t onDisk;      // names in all trees
    nlink_t inTree = 1;  // names in this one so far
  };
  const std::unordered_map<BackingId, Linked, HashBackingId>& linked() const { return linked_; }

 private:
  Expected<std::string> contentOf(const TreeWalk::Item& item, const std::string& path,
                                  Interrupt& interrupt);
  KnownContent known_;
  uint64_t entries_ = 0;
  uint64_t bytes_ = 0;
  std::unordered_map<BackingId, Linked, HashBackingId> linked_;
};

class ManifestWriter {
 public:
  /// Writes to `fd`, which it owns.
  ManifestWriter(UniqueFd fd, int64_t created, int64_t recorded);
  void add(const ManifestEntry& entry);
  /// ENOSPC and the like, also of what add() wrote. Call once.
  Status finish();

 private:
  void put(const std::string& line);
  void flush();

  UniqueFd fd_;
  Digest digest_;
  std::string buffer_;
  uint64_t entries_ = 0;
  Error error_{0, {}};
};

class ManifestReader {
 public:
  /// Checks the whole file first. ENOENT: there is none; EBADMSG: it is damaged.
  static Expected<ManifestReader> open(const std::string& path);

  int64_t created() const { return created_; }
  int64_t recorded() const { return recorded_; }
  /// The next entry; nothing at the end. EBADMSG.
  Expected<std::optional<ManifestEntry>> next();

 private:
  ManifestReader() = default;
  Status check(const std::string& path);
  Status readHeader();

  std::ifstream file_;
  std::string line_;
  int64_t created_ = 0;
  int64_t recorded_ = 0;
};

}  // namespace kilnfs
