#include "fs/node.h"

#include <poll.h>

#include "fs/fuse_compat.h"

namespace kilnfs {

void PollHandleDeleter::operator()(fuse_pollhandle* handle) const {
  fuse_pollhandle_destroy(handle);
}

void Handle::read(Reply reply, off_t, size_t) {
  reply.error(EISDIR);
}
void Handle::write(Reply reply, const WriteData&, off_t) {
  reply.error(EBADF);
}
void Handle::poll(Reply reply, PollHandle) {
  reply.poll(POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
}
void Handle::sync(Reply reply, bool) {
  reply.ok();
}
void Handle::allocate(Reply reply, int, off_t, off_t) {
  reply.error(EOPNOTSUPP);
}
void Handle::seek(Reply reply, off_t, int) {
  reply.error(EINVAL);
}

void Node::setattr(Reply reply, const SetAttributes&, Handle*) {
  reply.error(refusal());
}
void Node::open(Reply reply, int) {
  reply.error(EINVAL);
}
void Node::readlink(Reply reply) {
  reply.error(EINVAL);
}
void Node::lookup(Reply reply, const std::string&) {
  reply.error(ENOTDIR);
}
void Node::readdir(Reply reply, off_t, size_t, bool) {
  reply.error(ENOTDIR);
}
void Node::syncdir(Reply reply) {
  reply.ok();
}
void Node::create(Reply reply, const std::string&, int, mode_t) {
  reply.error(refusal());
}
void Node::createUnnamed(Reply reply, int, mode_t) {
  reply.error(refusal());
}
void Node::mknod(Reply reply, const std::string&, mode_t, dev_t) {
  reply.error(refusal());
}
void Node::mkdir(Reply reply, const std::string&, mode_t) {
  reply.error(refusal());
}
void Node::symlink(Reply reply, const std::string&, const std::string&) {
  reply.error(refusal());
}
void Node::link(Reply reply, Node& target, const std::string&) {
  reply.error(target.inode() != nullptr ? EXDEV : refusal());
}
void Node::rename(Reply reply, const std::string&, Node& newParent, const std::string&, unsigned) {
  reply.error(&newParent != this ? EXDEV : refusal());
}
void Node::unlink(Reply reply, const std::string&) {
  reply.error(refusal());
}
void Node::rmdir(Reply reply, const std::string&) {
  reply.error(refusal());
}
void Node::getxattr(Reply reply, const std::string&, size_t) {
  reply.error(ENODATA);
}
void Node::listxattr(Reply reply, size_t room) {
  reply.xattr({}, room);
}
void Node::setxattr(Reply reply, const std::string&, const std::string&, int) {
  reply.error(refusal());
}
void Node::removexattr(Reply reply, const std::string&) {
  reply.error(refusal());
}

}  // namespace kilnfs
