// A file or directory of a result, a lease or a build. Made for the time of one call: the node
// table holds the Inode alone.
#pragma once

#include "fs/mount.h"
#include "fs/node.h"

namespace kilnfs {

class TreeNode : public Node {
 public:
  TreeNode(Mount& mount, InodePtr inode) : mount_(mount), inode_(std::move(inode)) {}

  uint64_t number() const override { return inode_->number(); }
  Inode* inode() override { return inode_.get(); }

  void getattr(Reply reply, Handle* handle) override;
  void setattr(Reply reply, const SetAttributes& wanted, Handle* handle) override;
  void open(Reply reply, int flags) override;
  void readlink(Reply reply) override;
  /// Of the file system that it is on.
  void statfs(Reply reply);
  void lookup(Reply reply, const std::string& name) override;
  void readdir(Reply reply, off_t offset, size_t size, bool plus) override;
  void syncdir(Reply reply) override;
  void create(Reply reply, const std::string& name, int flags, mode_t mode) override;
  void createUnnamed(Reply reply, int flags, mode_t mode) override;
  void mknod(Reply reply, const std::string& name, mode_t mode, dev_t device) override;
  void mkdir(Reply reply, const std::string& name, mode_t mode) override;
  void symlink(Reply reply, const std::string& name, const std::string& target) override;
  void link(Reply reply, Node& target, const std::string& name) override;
  void rename(Reply reply, const std::string& name, Node& newParent, const std::string& newName,
              unsigned flags) override;
  void unlink(Reply reply, const std::string& name) override;
  void rmdir(Reply reply, const std::string& name) override;
  void getxattr(Reply reply, const std::string& name, size_t room) override;
  void listxattr(Reply reply, size_t room) override;
  void setxattr(Reply reply, const std::string& name, const std::string& value, int flags) override;
  void removexattr(Reply reply, const std::string& name) override;

 private:
  void change(Reply reply, const SetAttributes& wanted, Handle* handle);
  void setAcl(Reply reply, const std::string& value, int flags);
  Status dropSetgid(const Reply& reply);
  bool isLeaseRoot() const;
  bool letsOthersIn(const SetAttributes& wanted) const;
  void openLease(Reply reply, std::function<void(Reply, TreeNode&)> answer);
  static void forget(Mount& mount, const InodePtr& root);
  Tree& tree() const { return inode_->tree(); }
  void answer(Reply reply, const Expected<Tree::Entry>& entry) const;
  void answer(Reply reply, int flags, Expected<Tree::Created> created) const;
  bool belongsInCache(const File& file, int flags) const;
  bool mayPassThrough(const File& file) const;
  OpenAnswer admit(const Reply& reply, const File& file, int flags) const;
  double timeout(const Inode& inode) const;
  bool known(const std::string& name, EntryAnswer& entry);

  Mount& mount_;
  const InodePtr inode_;
};

/// What a change to a file's data by who asks for it leaves of its set-id bits.
inline SetId setIdAfter(const Reply& reply) {
  return reply.uid() != 0 ? SetId::dropped : SetId::kept;
}

/// Seconds for which the kernel may believe what it is told of a tree.
double beliefIn(const Tree& tree);

/// Answers a look-up of a tree's root. `mayBelieve`: the kernel may keep the name until it is told
/// that it is stale; else it asks each time.
void answerRoot(Mount& mount, Reply reply, const std::shared_ptr<Tree>& tree,
                const std::function<bool(const struct stat& root)>& mayBelieve);

}  // namespace kilnfs
