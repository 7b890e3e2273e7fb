#include "fs/reply.h"

#include <fcntl.h>
#include <unistd.h>

#include "fs/fuse_compat.h"

namespace kilnfs {
namespace {

fuse_entry_param entryParam(const EntryAnswer& answer) {
  fuse_entry_param entry = {};
  entry.ino = answer.node;
  entry.attr = answer.attributes;
  entry.entry_timeout = answer.entryTimeout;
  entry.attr_timeout = answer.attributeTimeout;
  return entry;
}

fuse_file_info fileInfo(const OpenAnswer& answer) {
  fuse_file_info info = {};
  info.fh = answer.handle;
  info.direct_io = answer.direct;
  info.keep_cache = answer.keepCache;
  info.nonseekable = answer.stream;
  if (answer.backing != 0) fusePassThrough(info, answer.backing);
  return info;
}

void onInterrupt(fuse_req_t, void* interrupt) {
  static_cast<Interrupt*>(interrupt)->raise();
}

}  // namespace

size_t WriteData::size() const {
  return fuse_buf_size(buffers_);
}

bool WriteData::append() const {
  return (info_.flags & O_APPEND) != 0 && info_.writepage == 0;
}

bool WriteData::clearSetId() const {
  return fuseWantsSetIdCleared(info_);
}

Expected<std::string> WriteData::copy() const {
  std::string bytes(size(), '\0');
  fuse_bufvec to = FUSE_BUFVEC_INIT(bytes.size());
  to.buf[0].mem = bytes.data();
  const ssize_t n = fuse_buf_copy(&to, buffers_, static_cast<fuse_buf_copy_flags>(0));
  if (n < 0) return fail(static_cast<int>(-n));
  bytes.resize(static_cast<size_t>(n));
  return bytes;
}

Expected<size_t> WriteData::writeTo(int fd, off_t offset) const {
  fuse_bufvec to = FUSE_BUFVEC_INIT(size());
  to.buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
  to.buf[0].fd = fd;
  to.buf[0].pos = offset;
  const ssize_t n = fuse_buf_copy(&to, buffers_, static_cast<fuse_buf_copy_flags>(0));
  if (n < 0) return fail(static_cast<int>(-n));
  return static_cast<size_t>(n);
}

Reply::~Reply() {
  if (request_ != nullptr) error(EIO);
}

fuse_req* Reply::take() {
  // Unregistering waits for a callback under way, so the Interrupt may go afterwards.
  if (interrupt_) fuse_req_interrupt_func(request_, nullptr, nullptr);
  return std::exchange(request_, nullptr);
}

void Reply::error(int code) {
  fuse_reply_err(take(), code);
}

void Reply::status(const Status& result) {
  if (result) {
    ok();
  } else {
    error(result.error());
  }
}

bool Reply::entry(const EntryAnswer& answer) {
  const fuse_entry_param entry = entryParam(answer);
  return fuse_reply_entry(take(), &entry) == 0;
}

bool Reply::opened(const OpenAnswer& answer) {
  const fuse_file_info info = fileInfo(answer);
  return fuse_reply_open(take(), &info) == 0;
}

bool Reply::created(const EntryAnswer& entry, const OpenAnswer& answer) {
  const fuse_entry_param param = entryParam(entry);
  const fuse_file_info info = fileInfo(answer);
  return fuse_reply_create(take(), &param, &info) == 0;
}

void Reply::noEntry(double timeout) {
  if (timeout <= 0) return error(ENOENT);
  fuse_entry_param entry = {};
  entry.entry_timeout = timeout;
  fuse_reply_entry(take(), &entry);
}

void Reply::attributes(const struct stat& st, double timeout) {
  fuse_reply_attr(take(), &st, timeout);
}

void Reply::link(const std::string& target) {
  fuse_reply_readlink(take(), target.c_str());
}

bool Reply::data(std::string_view bytes) {
  return fuse_reply_buf(take(), bytes.data(), bytes.size()) == 0;
}

void Reply::dataOf(int fd, off_t offset, size_t size) {
  fuse_bufvec from = FUSE_BUFVEC_INIT(size);
  from.buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
  from.buf[0].fd = fd;
  from.buf[0].pos = offset;
  fuse_reply_data(take(), &from, static_cast<fuse_buf_copy_flags>(0));
}

void Reply::written(size_t size) {
  fuse_reply_write(take(), size);
}

void Reply::statistics(const struct statvfs& st) {
  fuse_reply_statfs(take(), &st);
}

void Reply::xattr(std::string_view value, size_t room) {
  if (room == 0) {
    fuse_reply_xattr(take(), value.size());
  } else if (value.size() > room) {
    error(ERANGE);
  } else {
    data(value);
  }
}

void Reply::poll(unsigned events) {
  fuse_reply_poll(take(), events);
}

void Reply::offset(off_t at) {
  fuse_reply_lseek(take(), at);
}

std::shared_ptr<Interrupt> Reply::interruptible() {
  interrupt_ = std::make_shared<Interrupt>();
  fuse_req_interrupt_func(request_, onInterrupt, interrupt_.get());
  return interrupt_;
}

Requester Reply::requester(bool forCommands) const {
  const fuse_ctx* context = fuse_req_ctx(request_);
  Requester who;
  who.uid = context->uid;
  who.gid = context->gid;
  who.pid = context->pid;
  if (!forCommands || who.pid == 0) return who;
  std::vector<gid_t> groups(64);
  int n = fuse_req_getgroups(request_, static_cast<int>(groups.size()), groups.data());
  if (n > static_cast<int>(groups.size())) {
    groups.resize(static_cast<size_t>(n));
    n = fuse_req_getgroups(request_, n, groups.data());
  }
  groups.resize(n > 0 ? std::min(static_cast<size_t>(n), groups.size()) : 0);
  who.groups = std::move(groups);
  std::string cwd(4096, '\0');
  const std::string link = "/proc/" + std::to_string(who.pid) + "/cwd";
  const ssize_t length = ::readlink(link.c_str(), cwd.data(), cwd.size());
  if (length > 0 && static_cast<size_t>(length) < cwd.size() && cwd[0] == '/') {
    who.cwd = cwd.substr(0, static_cast<size_t>(length));
  }
  return who;
}

Creator Reply::creator() const {
  const fuse_ctx* context = fuse_req_ctx(request_);
  return {context->uid, context->gid, context->umask};
}

uid_t Reply::uid() const {
  return fuse_req_ctx(request_)->uid;
}

size_t DirectoryAnswer::sizeOf(const char* name, bool plus) {
  return plus ? fuse_add_direntry_plus(nullptr, nullptr, 0, name, nullptr, 0)
              : fuse_add_direntry(nullptr, nullptr, 0, name, nullptr, 0);
}

bool DirectoryAnswer::add(const char* name, uint64_t ino, mode_t type, off_t next) {
  struct stat st = {};
  st.st_ino = ino;
  st.st_mode = type;
  const size_t size =
      fuse_add_direntry(request_, buffer_.data() + used_, buffer_.size() - used_, name, &st, next);
  if (size > buffer_.size() - used_) return false;
  used_ += size;
  return true;
}

bool DirectoryAnswer::addPlus(const char* name, const EntryAnswer& entry, off_t next) {
  const fuse_entry_param param = entryParam(entry);
  const size_t size = fuse_add_direntry_plus(request_, buffer_.data() + used_,
                                             buffer_.size() - used_, name, &param, next);
  if (size > buffer_.size() - used_) return false;
  used_ += size;
  return true;
}

}  // namespace kilnfs
