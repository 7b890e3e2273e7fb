// One kind of thing in the mounted tree is one class of Node; one open of it is a Handle.
//
// Reading is what a node must say how to do; every change that it does not offer is refused, with
// EPERM or what refusal() says. Calls come from the session's threads, several at once, and answer
// their Reply there or move it to a worker; whatever may start a thread or a command, copy, publish
// or wait belongs on a worker. References that are passed are valid during the call only.
#pragma once

#include <memory>
#include <string>

#include "fs/reply.h"
#include "store/tree/file.h"
#include "store/tree/inode.h"
#include "store/tree/tree.h"

namespace kilnfs {

struct PollHandleDeleter {
  void operator()(fuse_pollhandle* handle) const;
};
using PollHandle = std::unique_ptr<fuse_pollhandle, PollHandleDeleter>;

class Handle : public std::enable_shared_from_this<Handle> {
 public:
  virtual ~Handle() = default;

  virtual void read(Reply reply, off_t offset, size_t size);
  virtual void write(Reply reply, const WriteData& data, off_t offset);
  /// `waker` may be empty; else it is to be notified once when something changes.
  virtual void poll(Reply reply, PollHandle waker);
  virtual void sync(Reply reply, bool dataOnly);
  virtual void allocate(Reply reply, int mode, off_t offset, off_t length);
  virtual void seek(Reply reply, off_t offset, int whence);
  /// Called when the kernel has let go of it; it is destroyed afterwards.
  virtual void closed() {}
  /// The same at the end of the session, when somebody may have it open still.
  virtual void abandoned() { closed(); }
  /// The open file of a tree, or null.
  virtual File* file() { return nullptr; }
};

class Node {
 public:
  virtual ~Node() = default;

  /// The number by which the kernel knows the node.
  virtual uint64_t number() const = 0;
  /// What it is in a tree, or null.
  virtual Inode* inode() { return nullptr; }

  virtual void getattr(Reply reply, Handle* handle) = 0;
  virtual void setattr(Reply reply, const SetAttributes& wanted, Handle* handle);
  virtual void open(Reply reply, int flags);
  virtual void readlink(Reply reply);

  // Of directories.
  virtual void lookup(Reply reply, const std::string& name);
  /// From the cookie `offset` on. Open directories are the kernel's own matter: it asks for what it
  /// has not cached, and says not who for. `plus`: may carry attributes, counted as look-ups.
  virtual void readdir(Reply reply, off_t offset, size_t size, bool plus);
  virtual void syncdir(Reply reply);
  virtual void create(Reply reply, const std::string& name, int flags, mode_t mode);
  virtual void createUnnamed(Reply reply, int flags, mode_t mode);
  virtual void mknod(Reply reply, const std::string& name, mode_t mode, dev_t device);
  virtual void mkdir(Reply reply, const std::string& name, mode_t mode);
  virtual void symlink(Reply reply, const std::string& name, const std::string& target);
  virtual void link(Reply reply, Node& target, const std::string& name);
  virtual void rename(Reply reply, const std::string& name, Node& newParent,
                      const std::string& newName, unsigned flags);
  virtual void unlink(Reply reply, const std::string& name);
  virtual void rmdir(Reply reply, const std::string& name);

  virtual void getxattr(Reply reply, const std::string& name, size_t room);
  virtual void listxattr(Reply reply, size_t room);
  virtual void setxattr(Reply reply, const std::string& name, const std::string& value, int flags);
  virtual void removexattr(Reply reply, const std::string& name);

 protected:
  virtual int refusal() const { return EPERM; }
};

/// A node of the daemon's own making: not a file on disk. Held by the kernel's look-ups and by its
/// parent.
class OwnNode : public Node, public std::enable_shared_from_this<OwnNode> {
 public:
  OwnNode() : number_(nextNodeNumber()) {}
  uint64_t number() const override { return number_; }

  virtual struct stat attributes() const = 0;
  /// Seconds for which the kernel may believe them.
  virtual double attributesTimeout() const { return 0; }
  void getattr(Reply reply, Handle*) override {
    reply.attributes(attributes(), attributesTimeout());
  }

 protected:
  explicit OwnNode(uint64_t number) : number_(number) {}

 private:
  const uint64_t number_;
};

}  // namespace kilnfs
