#include "store/tree/file.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "store/tree/system.h"
#include "store/tree/tree.h"

namespace kilnfs {

File::File(InodePtr inode, UniqueFd fd, const struct stat& st, bool writable,
           std::shared_ptr<Workspace> workspace)
    : inode_(std::move(inode)),
      fd_(std::move(fd)),
      atOpening_(st),
      writable_(writable),
      workspace_(std::move(workspace)) {}

File::File(InodePtr inode, UniqueFd fd, const struct stat& st, std::shared_ptr<Snapshot> snapshot)
    : inode_(std::move(inode)),
      fd_(std::move(fd)),
      atOpening_(st),
      writable_(false),
      snapshot_(std::move(snapshot)) {
  snapshot_->fileOpened();
}

File::~File() {
  if (snapshot_) snapshot_->fileClosed();
  // Before the descriptor is closed: nobody may move it after that.
  if (workspace_ && (!writable_ || workspace_->changedElsewhere())) {
    inode_->tree().removeOpen(*this);
  }
  if (mayBeMapped_ && workspace_) {
    auto readOnly = reopen(fd(), O_RDONLY);
    fd_.reset();  // else we are who writes
    if (readOnly) workspace_->watchMapping(std::move(*readOnly));
  }
  if (workspace_) workspace_->closed(writable_);
}

// The bits are a change too: what is published keeps them.
Expected<Workspace::Change> File::beginChange(SetId setId) const {
  if (!writable_) return fail(EBADF);
  if (!workspace_) return fail(EROFS);
  auto change = workspace_->beginChange();
  if (!change) return fail(ESTALE);
  if (setId == SetId::dropped) dropSetId(fd());
  return std::move(*change);
}

Failure File::lost(int code) const {
  if (workspace_ && (code == ENOSPC || code == EDQUOT || code == EIO)) {
    workspace_->noteWriteError(code);
  }
  return fail(code);
}

Expected<size_t> File::write(const std::function<Expected<size_t>(int fd)>& writer, SetId setId) {
  const auto change = beginChange(setId);
  if (!change) return Failure(change.error());
  auto written = writer(fd());
  if (!written) return lost(written.error().code);
  return written;
}

Expected<size_t> File::append(const void* data, size_t size, SetId setId) {
  const auto writer = [data, size](int fd) -> Expected<size_t> {
    struct iovec iov = {const_cast<void*>(data), size};
    // The flag instead of O_APPEND on the descriptor: that would also move what a shared mapping
    // writes back, and could not follow fcntl(F_SETFL).
    const ssize_t n = ::pwritev2(fd, &iov, 1, 0, RWF_APPEND);
    if (n < 0) return fail(errno);
    return static_cast<size_t>(n);
  };
  return write(writer, setId);
}

Status File::allocate(int mode, off_t offset, off_t length, SetId setId) {
  const auto change = beginChange(setId);
  if (!change) return Failure(change.error());
  if (::fallocate(fd(), mode, offset, length) != 0) return lost(errno);
  return {};
}

Expected<off_t> File::seek(off_t offset, int whence) const {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return fail(EINVAL);
  const off_t found = ::lseek(fd(), offset, whence);
  if (found < 0) return fail(errno);
  return found;
}

Status File::sync(bool dataOnly) const {
  if ((dataOnly ? ::fdatasync(fd()) : ::fsync(fd())) != 0) return lost(errno);
  return {};
}

Expected<size_t> File::copyFrom(const File& in, off_t inOffset, off_t outOffset, size_t size,
                                SetId setId) {
  const auto change = beginChange(setId);
  if (!change) return Failure(change.error());
  const ssize_t n = ::copy_file_range(in.fd(), &inOffset, fd(), &outOffset, size, 0);
  if (n < 0) return lost(errno);
  return static_cast<size_t>(n);
}

}  // namespace kilnfs
