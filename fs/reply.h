// The answer to one request: given exactly once, from any thread. A Reply that is dropped without
// an answer (a stray exception) answers EIO. Errors become an errno here and nowhere else.
//
// No lock may be held while answering: the kernel may come back with the next request, and FORGET
// may free what the answer was about.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <memory>
#include <string>
#include <string_view>

#include "store/base/error.h"
#include "store/base/interrupt.h"
#include "store/base/requester.h"
#include "store/tree/identity.h"

struct fuse_req;
struct fuse_bufvec;
struct fuse_file_info;
struct fuse_pollhandle;

namespace kilnfs {

/// What look-ups give. Times in seconds.
struct EntryAnswer {
  uint64_t node = 0;
  struct stat attributes = {};
  double entryTimeout = 0;
  double attributeTimeout = 0;
};

struct OpenAnswer {
  uint64_t handle = 0;
  bool direct = false;     // no page cache
  bool keepCache = false;  // cached pages are still right
  bool stream = false;     // not seekable
  int backing = 0;         // the registered file to pass it through to, or none
};

/// What is to be written; valid until the callback that got it returns.
class WriteData {
 public:
  WriteData(fuse_bufvec* buffers, const fuse_file_info& info) : buffers_(buffers), info_(info) {}

  size_t size() const;
  Expected<std::string> copy() const;
  /// Writes to `fd` at `offset`, spliced where that is possible.
  Expected<size_t> writeTo(int fd, off_t offset) const;
  /// Whether it is to go to the end of the file, wherever that is: not so for what a mapping
  /// writes back, through whichever descriptor the kernel finds.
  bool append() const;
  /// Whether the file's set-id bits are to go first.
  bool clearSetId() const;

 private:
  fuse_bufvec* buffers_;
  const fuse_file_info& info_;
};

class Reply {
 public:
  explicit Reply(fuse_req* request) : request_(request) {}
  Reply(Reply&& other) noexcept
      : request_(std::exchange(other.request_, nullptr)), interrupt_(std::move(other.interrupt_)) {}
  Reply& operator=(Reply&&) = delete;
  ~Reply();

  void ok() { error(0); }
  void error(int code);
  void error(const Error& failure) { error(failure.code != 0 ? failure.code : EIO); }
  /// Answers with the error of a failed Status, or success.
  void status(const Status& result);

  // Those that say false did not reach the kernel (the request was interrupted, or the mount is
  // gone): what they counted or opened has to be taken back.
  [[nodiscard]] bool entry(const EntryAnswer& answer);
  [[nodiscard]] bool opened(const OpenAnswer& answer);
  [[nodiscard]] bool created(const EntryAnswer& entry, const OpenAnswer& answer);

  /// There is no such name, and that may be believed for `timeout` seconds.
  void noEntry(double timeout);
  void attributes(const struct stat& st, double timeout);
  void link(const std::string& target);
  /// As entry(), for an answer that counts look-ups.
  bool data(std::string_view bytes);
  /// Up to `size` bytes of `fd`, spliced.
  void dataOf(int fd, off_t offset, size_t size);
  void written(size_t size);
  void statistics(const struct statvfs& st);
  /// An extended attribute or their list, for a buffer of `room` bytes (0: only how long it is).
  void xattr(std::string_view value, size_t room);
  void poll(unsigned events);
  void offset(off_t at);

  /// Raised when the caller got a signal, from a thread of the session. Call once.
  std::shared_ptr<Interrupt> interruptible();

  /// Who asks. `forCommands`: with supplementary groups and working directory.
  Requester requester(bool forCommands = false) const;
  Creator creator() const;
  uid_t uid() const;
  fuse_req* request() const { return request_; }

 private:
  fuse_req* take();

  fuse_req* request_;
  std::shared_ptr<Interrupt> interrupt_;
};

/// Collects directory entries for one answer.
class DirectoryAnswer {
 public:
  DirectoryAnswer(const Reply& reply, size_t room)
      : request_(reply.request()), buffer_(room, '\0') {}
  /// The room that an entry takes.
  static size_t sizeOf(const char* name, bool plus);
  /// False: no room, the entry was not taken. `next`: the cookie after it.
  bool add(const char* name, uint64_t ino, mode_t type, off_t next);
  /// The same with attributes (READDIRPLUS); node 0: nothing known of it but number and type.
  bool addPlus(const char* name, const EntryAnswer& entry, off_t next);
  std::string_view bytes() const { return {buffer_.data(), used_}; }
  /// The same of a listing that the kernel must not cache. It takes one as complete when the answer
  /// is empty; an answer that is too short for an entry ends the reader's listing just as well.
  std::string_view uncachedBytes() const {
    return used_ != 0 ? bytes() : std::string_view(buffer_.data(), buffer_.empty() ? 0 : 1);
  }

 private:
  fuse_req* request_;
  std::string buffer_;
  size_t used_ = 0;
};

}  // namespace kilnfs
