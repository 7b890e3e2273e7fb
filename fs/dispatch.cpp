#include "fs/dispatch.h"

#include <spdlog/spdlog.h>

#include <exception>

#include "fs/agree.h"
#include "fs/tree_node.h"

namespace kilnfs {
namespace {

Mount& mountOf(fuse_req_t request) {
  return static_cast<Dispatch*>(fuse_req_userdata(request))->mount;
}

// The one place where stray exceptions end. The Reply, wherever it was moved to, has answered EIO.
template <class Fn>
void guarded(const char* what, Fn fn) {
  try {
    fn();
  } catch (const std::exception& e) {
    spdlog::error("{}: {}", what, e.what());
  } catch (...) {
    spdlog::error("{}: unknown exception", what);
  }
}

// Calls `fn` with the node of `number`, or answers ESTALE.
template <class Fn>
void withNode(fuse_req_t request, fuse_ino_t number, const char* what, Fn fn) {
  guarded(what, [&] {
    Reply reply(request);
    Mount& mount = mountOf(request);
    const NodeRef ref = mount.nodes.find(number);
    if (ref.inode) {
      TreeNode node(mount, ref.inode);
      fn(std::move(reply), static_cast<Node&>(node));
    } else if (ref.own) {
      fn(std::move(reply), static_cast<Node&>(*ref.own));
    } else {
      reply.error(ESTALE);
    }
  });
}

template <class Fn>
void withNodes(fuse_req_t request, fuse_ino_t first, fuse_ino_t second, const char* what, Fn fn) {
  withNode(request, first, what, [&](Reply reply, Node& a) {
    Mount& mount = mountOf(request);
    const NodeRef ref = mount.nodes.find(second);
    if (ref.inode) {
      TreeNode b(mount, ref.inode);
      fn(std::move(reply), a, static_cast<Node&>(b));
    } else if (ref.own) {
      fn(std::move(reply), a, static_cast<Node&>(*ref.own));
    } else {
      reply.error(ESTALE);
    }
  });
}

template <class Fn>
void withHandle(fuse_req_t request, const fuse_file_info* info, const char* what, Fn fn) {
  guarded(what, [&] {
    Reply reply(request);
    const auto handle = mountOf(request).handles.find(info->fh);
    if (!handle) return reply.error(EBADF);
    fn(std::move(reply), *handle);
  });
}

std::shared_ptr<Handle> handleOf(fuse_req_t request, const fuse_file_info* info) {
  return info != nullptr ? mountOf(request).handles.find(info->fh) : nullptr;
}

// -- the session

void opInit(void* data, fuse_conn_info* conn) {
  auto* dispatch = static_cast<Dispatch*>(data);
  agree(*conn, dispatch->mount);
  if (dispatch->ready) dispatch->ready();
}

void opForget(fuse_req_t request, fuse_ino_t number, uint64_t times) {
  guarded("forget", [&] { mountOf(request).nodes.forget(number, times); });
  fuse_reply_none(request);
}

void opForgetMulti(fuse_req_t request, size_t count, fuse_forget_data* forgets) {
  guarded("forget", [&] {
    for (size_t i = 0; i < count; ++i) {
      mountOf(request).nodes.forget(forgets[i].ino, forgets[i].nlookup);
    }
  });
  fuse_reply_none(request);
}

// -- names

void opLookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  withNode(request, parent, "lookup",
           [&](Reply reply, Node& node) { node.lookup(std::move(reply), name); });
}

void opMknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  withNode(request, parent, "mknod",
           [&](Reply reply, Node& node) { node.mknod(std::move(reply), name, mode, device); });
}

void opMkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  withNode(request, parent, "mkdir",
           [&](Reply reply, Node& node) { node.mkdir(std::move(reply), name, mode); });
}

void opUnlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  withNode(request, parent, "unlink",
           [&](Reply reply, Node& node) { node.unlink(std::move(reply), name); });
}

void opRmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
  withNode(request, parent, "rmdir",
           [&](Reply reply, Node& node) { node.rmdir(std::move(reply), name); });
}

void opSymlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  withNode(request, parent, "symlink",
           [&](Reply reply, Node& node) { node.symlink(std::move(reply), name, target); });
}

void opRename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t newParent,
              const char* newName, unsigned flags) {
  withNodes(request, parent, newParent, "rename", [&](Reply reply, Node& from, Node& to) {
    // Two TreeNodes may stand for one inode: own nodes compare by address, so give them theirs.
    from.rename(std::move(reply), name, parent == newParent ? from : to, newName, flags);
  });
}

void opLink(fuse_req_t request, fuse_ino_t target, fuse_ino_t newParent, const char* newName) {
  withNodes(request, newParent, target, "link", [&](Reply reply, Node& parent, Node& file) {
    parent.link(std::move(reply), file, newName);
  });
}

// -- attributes

void opGetattr(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  withNode(request, number, "getattr", [&](Reply reply, Node& node) {
    node.getattr(std::move(reply), handleOf(request, info).get());
  });
}

void opSetattr(fuse_req_t request, fuse_ino_t number, struct stat* st, int set,
               fuse_file_info* info) {
  SetAttributes wanted;
  if ((set & FUSE_SET_ATTR_MODE) != 0) wanted.mode = st->st_mode;
  if ((set & FUSE_SET_ATTR_UID) != 0) wanted.uid = st->st_uid;
  if ((set & FUSE_SET_ATTR_GID) != 0) wanted.gid = st->st_gid;
  if ((set & FUSE_SET_ATTR_SIZE) != 0) wanted.size = st->st_size;
  if ((set & FUSE_SET_ATTR_ATIME) != 0) wanted.atime = st->st_atim;
  if ((set & FUSE_SET_ATTR_MTIME) != 0) wanted.mtime = st->st_mtim;
  if ((set & FUSE_SET_ATTR_ATIME_NOW) != 0) wanted.atime = timespec{0, UTIME_NOW};
  if ((set & FUSE_SET_ATTR_MTIME_NOW) != 0) wanted.mtime = timespec{0, UTIME_NOW};
  if ((set & kFuseKillSetId) != 0) wanted.clearSetId = true;
  withNode(request, number, "setattr", [&](Reply reply, Node& node) {
    node.setattr(std::move(reply), wanted, handleOf(request, info).get());
  });
}

void opReadlink(fuse_req_t request, fuse_ino_t number) {
  withNode(request, number, "readlink",
           [&](Reply reply, Node& node) { node.readlink(std::move(reply)); });
}

void opStatfs(fuse_req_t request, fuse_ino_t number) {
  guarded("statfs", [&] {
    Reply reply(request);
    Mount& mount = mountOf(request);
    const NodeRef ref = mount.nodes.find(number);
    if (ref.inode) return TreeNode(mount, ref.inode).statfs(std::move(reply));
    mount.answerSpace(std::move(reply));
  });
}

void opGetxattr(fuse_req_t request, fuse_ino_t number, const char* name, size_t room) {
  withNode(request, number, "getxattr",
           [&](Reply reply, Node& node) { node.getxattr(std::move(reply), name, room); });
}

void opListxattr(fuse_req_t request, fuse_ino_t number, size_t room) {
  withNode(request, number, "listxattr",
           [&](Reply reply, Node& node) { node.listxattr(std::move(reply), room); });
}

void opSetxattr(fuse_req_t request, fuse_ino_t number, const char* name, const char* value,
                size_t size, int flags) {
  withNode(request, number, "setxattr", [&](Reply reply, Node& node) {
    node.setxattr(std::move(reply), name, std::string(value, size), flags);
  });
}

void opRemovexattr(fuse_req_t request, fuse_ino_t number, const char* name) {
  withNode(request, number, "removexattr",
           [&](Reply reply, Node& node) { node.removexattr(std::move(reply), name); });
}

// -- open files and directories

void opOpen(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  withNode(request, number, "open",
           [&](Reply reply, Node& node) { node.open(std::move(reply), info->flags); });
}

void opCreate(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
              fuse_file_info* info) {
  withNode(request, parent, "create", [&](Reply reply, Node& node) {
    node.create(std::move(reply), name, info->flags, mode);
  });
}

void opTmpfile(fuse_req_t request, fuse_ino_t parent, mode_t mode, fuse_file_info* info) {
  withNode(request, parent, "tmpfile", [&](Reply reply, Node& node) {
    node.createUnnamed(std::move(reply), info->flags, mode);
  });
}

// The kernel then opens directories without asking, caches all listings, and reads without a
// handle.
void opOpendir(fuse_req_t request, fuse_ino_t, fuse_file_info*) {
  Reply(request).error(ENOSYS);
}

void opRelease(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  guarded("release", [&] {
    Reply reply(request);
    Mount& mount = mountOf(request);
    const auto closed = mount.close(info->fh);
    for (const int backing : mount.opens.takeUnused()) fuseDismiss(request, backing);
    reply.ok();
  });
}

void opRead(fuse_req_t request, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
  withHandle(request, info, "read",
             [&](Reply reply, Handle& handle) { handle.read(std::move(reply), offset, size); });
}

void opWriteBuf(fuse_req_t request, fuse_ino_t, fuse_bufvec* buffers, off_t offset,
                fuse_file_info* info) {
  withHandle(request, info, "write", [&](Reply reply, Handle& handle) {
    handle.write(std::move(reply), WriteData(buffers, *info), offset);
  });
}

void opReaddir(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, fuse_file_info*) {
  withNode(request, number, "readdir",
           [&](Reply reply, Node& node) { node.readdir(std::move(reply), offset, size, false); });
}

void opReaddirplus(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset,
                   fuse_file_info*) {
  withNode(request, number, "readdirplus",
           [&](Reply reply, Node& node) { node.readdir(std::move(reply), offset, size, true); });
}

void opFsyncdir(fuse_req_t request, fuse_ino_t number, int, fuse_file_info*) {
  withNode(request, number, "fsyncdir",
           [&](Reply reply, Node& node) { node.syncdir(std::move(reply)); });
}

void opPoll(fuse_req_t request, fuse_ino_t, fuse_file_info* info, fuse_pollhandle* waker) {
  PollHandle owned(waker);
  withHandle(request, info, "poll",
             [&](Reply reply, Handle& handle) { handle.poll(std::move(reply), std::move(owned)); });
}

void opFsync(fuse_req_t request, fuse_ino_t, int dataOnly, fuse_file_info* info) {
  withHandle(request, info, "fsync",
             [&](Reply reply, Handle& handle) { handle.sync(std::move(reply), dataOnly != 0); });
}

void opFallocate(fuse_req_t request, fuse_ino_t, int mode, off_t offset, off_t length,
                 fuse_file_info* info) {
  withHandle(request, info, "fallocate", [&](Reply reply, Handle& handle) {
    handle.allocate(std::move(reply), mode, offset, length);
  });
}

void opLseek(fuse_req_t request, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
  withHandle(request, info, "lseek",
             [&](Reply reply, Handle& handle) { handle.seek(std::move(reply), offset, whence); });
}

void opCopyFileRange(fuse_req_t request, fuse_ino_t, off_t inOffset, fuse_file_info* in, fuse_ino_t,
                     off_t outOffset, fuse_file_info* out, size_t size, int) {
  guarded("copy_file_range", [&] {
    Reply reply(request);
    const auto from = handleOf(request, in);
    const auto to = handleOf(request, out);
    if (!from || !to) return reply.error(EBADF);
    if (from->file() == nullptr || to->file() == nullptr) return reply.error(EOPNOTSUPP);
    const auto copied =
        to->file()->copyFrom(*from->file(), inOffset, outOffset, size, setIdAfter(reply));
    if (!copied) return reply.error(copied.error());
    reply.written(*copied);
  });
}

fuse_lowlevel_ops makeOperations() {
  fuse_lowlevel_ops ops = {};
  ops.init = opInit;
  ops.forget = opForget;
  ops.forget_multi = opForgetMulti;
  ops.lookup = opLookup;
  ops.mknod = opMknod;
  ops.mkdir = opMkdir;
  ops.unlink = opUnlink;
  ops.rmdir = opRmdir;
  ops.symlink = opSymlink;
  ops.rename = opRename;
  ops.link = opLink;
  ops.getattr = opGetattr;
  ops.setattr = opSetattr;
  ops.readlink = opReadlink;
  ops.statfs = opStatfs;
  ops.getxattr = opGetxattr;
  ops.listxattr = opListxattr;
  ops.setxattr = opSetxattr;
  ops.removexattr = opRemovexattr;
  ops.open = opOpen;
  ops.create = opCreate;
  fuseSetTmpfile(ops, opTmpfile);
  ops.opendir = opOpendir;
  ops.release = opRelease;
  ops.read = opRead;
  ops.write_buf = opWriteBuf;
  ops.readdir = opReaddir;
  ops.readdirplus = opReaddirplus;
  ops.poll = opPoll;
  ops.fsync = opFsync;
  ops.fsyncdir = opFsyncdir;
  ops.fallocate = opFallocate;
  ops.lseek = opLseek;
  ops.copy_file_range = opCopyFileRange;
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& fuseOperations() {
  static const fuse_lowlevel_ops kOperations = makeOperations();
  return kOperations;
}

}  // namespace kilnfs
