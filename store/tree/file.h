// An open regular file of a tree. Owns its descriptor and counts as an open of its workspace.
#pragma once

#include <functional>

#include "store/base/error.h"
#include "store/base/fd.h"
#include "store/snapshot.h"
#include "store/tree/inode.h"
#include "store/workspace.h"

namespace kilnfs {

/// What a change to its data leaves of a file's set-id bits: one by somebody without privilege
/// takes them away.
enum class SetId { kept, dropped };

class File {
 public:
  /// Of a workspace, which was told of the open already.
  File(InodePtr inode, UniqueFd fd, const struct stat& st, bool writable,
       std::shared_ptr<Workspace> workspace);
  /// Of a snapshot.
  File(InodePtr inode, UniqueFd fd, const struct stat& st, std::shared_ptr<Snapshot> snapshot);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  /// For positioned reads and writes; never O_APPEND nor O_DIRECT. Owned by this object.
  int fd() const { return fd_.get(); }
  bool writable() const { return writable_; }
  /// Its attributes on disk when it was opened.
  const struct stat& atOpening() const { return atOpening_; }
  const InodePtr& inode() const { return inode_; }

  /// Runs `writer`, which writes to the descriptor that it gets and says how much. ESTALE: the
  /// workspace was sealed; EBADF; EROFS. Data that could not be written is noted in the workspace.
  Expected<size_t> write(const std::function<Expected<size_t>(int fd)>& writer,
                         SetId setId = SetId::kept);

  /// Writes at the end, wherever that is now, as O_APPEND does.
  Expected<size_t> append(const void* data, size_t size, SetId setId = SetId::kept);
  /// Says that it may have been mapped for writing behind our back, and be so when it is closed.
  void mayBeMapped() { mayBeMapped_ = true; }
  Status allocate(int mode, off_t offset, off_t length, SetId setId = SetId::kept);
  /// SEEK_DATA and SEEK_HOLE; ENXIO past the end.
  Expected<off_t> seek(off_t offset, int whence) const;
  Status sync(bool dataOnly) const;
  /// copy_file_range(2) from `in`, which may be of another tree.
  Expected<size_t> copyFrom(const File& in, off_t inOffset, off_t outOffset, size_t size,
                            SetId setId = SetId::kept);

 private:
  Expected<Workspace::Change> beginChange(SetId setId) const;
  Failure lost(int code) const;

  const InodePtr inode_;
  UniqueFd fd_;
  const struct stat atOpening_;
  const bool writable_;
  bool mayBeMapped_ = false;
  const std::shared_ptr<Workspace> workspace_;  // one of the two
  const std::shared_ptr<Snapshot> snapshot_;
};

}  // namespace kilnfs
