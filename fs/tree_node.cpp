#include "fs/tree_node.h"

#include <dirent.h>
#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <thread>
#include <tuple>

#include "store/tree/system.h"

namespace kilnfs {
namespace {

constexpr const char* kAccessAcl = "system.posix_acl_access";
constexpr std::chrono::seconds kOpensWithin{1};

File* fileOf(Handle* handle) {
  return handle != nullptr ? handle->file() : nullptr;
}

}  // namespace

double beliefIn(const Tree& tree) {
  return tree.changedElsewhere() ? 0 : kForever;
}

void answerRoot(Mount& mount, Reply reply, const std::shared_ptr<Tree>& tree,
                const std::function<bool(const struct stat& root)>& mayBelieve) {
  const auto root = tree->root();
  if (!root) return reply.error(root.error());
  const double belief = beliefIn(*tree);
  mount.answerEntry(std::move(reply), NodeRef(root->inode), root->attributes,
                    mayBelieve(root->attributes) ? belief : 0, belief);
}

void TreeNode::answer(Reply reply, const Expected<Tree::Entry>& entry) const {
  if (!entry) return reply.error(entry.error());
  mount_.answerEntry(std::move(reply), NodeRef(entry->inode), entry->attributes, beliefIn(tree()),
                     timeout(*entry->inode));
}

void TreeNode::getattr(Reply reply, Handle* handle) {
  const auto st = tree().getattr(*inode_, fileOf(handle));
  if (!st) return reply.error(st.error());
  reply.attributes(*st, timeout(*inode_));
}

void TreeNode::setattr(Reply reply, const SetAttributes& wanted, Handle* handle) {
  if (!letsOthersIn(wanted)) return change(std::move(reply), wanted, handle);
  openLease(std::move(reply), [wanted](Reply held, TreeNode& node) {
    node.change(std::move(held), wanted, nullptr);
  });
}

void TreeNode::change(Reply reply, const SetAttributes& wanted, Handle* handle) {
  const auto st = tree().setattr(*inode_, wanted, fileOf(handle));
  if (wanted.size) mount_.opens.settle(number());
  if (!st) return reply.error(st.error());
  reply.attributes(*st, timeout(*inode_));
}

// Whether it is the root of a lease that only its holder comes into, which can't be said of it with
// these attributes.
bool TreeNode::letsOthersIn(const SetAttributes& wanted) const {
  if ((!wanted.mode && !wanted.uid) || !isLeaseRoot()) return false;
  const auto holder = mount_.leaseNames.letsIn(tree().key());
  auto st = tree().getattr(*inode_);
  if (!holder || !st) return false;
  if (wanted.mode) st->st_mode = *wanted.mode;
  if (wanted.uid) st->st_uid = *wanted.uid;
  return !LeaseNames::canBePrivate(*holder, *st);
}

// Who has the right to comes in by the attributes of the lease's root now, no longer past it.
//
// The kernel forgets the name under the lock of leases/. Who asks may hold that (rename looks at
// the rights to what it moves), or a lock for which whoever holds it waits (rmdir, while this
// changes attributes). So while an answer is owed it is not waited for without end; it goes on by
// itself, and until it is done the root shows others that they may not come in.
void TreeNode::openLease(Reply reply, std::function<void(Reply, TreeNode&)> answer) {
  mount_.laterWaiting(std::move(reply), [&mount = mount_, inode = inode_, answer](Reply held) {
    const std::string& lease = inode->tree().key();
    if (mount.leaseNames.keepNoMore(lease)) {
      mount.laterWaiting([&mount, inode] { forget(mount, inode); });
    }
    mount.leaseNames.awaitOpen(lease, kOpensWithin);
    TreeNode node(mount, inode);
    answer(std::move(held), node);
  });
}

// Has the kernel forget the name of the lease with this root, and then opens the lease.
void TreeNode::forget(Mount& mount, const InodePtr& root) {
  const Tree& tree = root->tree();
  const std::string name = tree.key().substr(tree.key().rfind('/') + 1);
  // Twice, for an answer that was on its way; and those who have come by the name already, and
  // are at the door, are to find it closed.
  for (int i = 0; i < 2; ++i) {
    mount.staleNames.drop(tree.outerIno(), name, false);
    mount.staleNames.settle();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  mount.leaseNames.open(tree.key());
  // And with them the ACL that was shown to those who did not want to wait.
  mount.attributesChanged(root->number());
}

bool TreeNode::isLeaseRoot() const {
  return tree().isRoot(*inode_) && tree().key().starts_with("leases/");
}

void TreeNode::readdir(Reply reply, off_t offset, size_t size, bool plus) {
  struct Listed {
    std::string name;
    uint64_t ino;
    mode_t type;
    off_t next;
  };
  // Taken first and looked up afterwards, which the tree does not allow in between.
  std::vector<Listed> items;
  size_t room = size;
  const auto done = tree().readDirectory(*inode_, offset, [&](const Tree::Item& item) {
    const size_t needs = DirectoryAnswer::sizeOf(item.name, plus);
    if (needs > room) return false;
    room -= needs;
    items.push_back({item.name, item.ino, DTTOIF(item.type), item.next});
    return true;
  });
  if (!done) return reply.error(done.error());
  DirectoryAnswer answer(reply, size);
  const bool filesToo = plus && tree().listingUse().wantsFiles();
  std::vector<uint64_t> counted;
  for (const Listed& item : items) {
    if (!plus) {
      std::ignore = answer.add(item.name.c_str(), item.ino, item.type, item.next);
      continue;
    }
    EntryAnswer entry;
    entry.attributes.st_ino = item.ino;
    entry.attributes.st_mode = item.type;
    if (plainName(item.name) && (filesToo || S_ISDIR(item.type))) {
      if (known(item.name, entry)) counted.push_back(entry.node);
    }
    std::ignore = answer.addPlus(item.name.c_str(), entry, item.next);
  }
  if (reply.data(tree().changedElsewhere() ? answer.uncachedBytes() : answer.bytes())) return;
  for (const uint64_t number : counted) mount_.nodes.forget(number, 1);
}

// Counts a look-up for an entry of an answer that will be sent: once it is out the kernel may
// forget.
bool TreeNode::known(const std::string& name, EntryAnswer& entry) {
  const auto found = tree().lookup(*inode_, name);
  if (!found) return false;
  entry = {found->inode->number(), found->attributes, beliefIn(tree()), timeout(*found->inode)};
  mount_.nodes.remember(NodeRef(found->inode));
  return true;
}

void TreeNode::syncdir(Reply reply) {
  reply.status(tree().syncDirectory(*inode_));
}

void TreeNode::lookup(Reply reply, const std::string& name) {
  const auto entry = tree().lookup(*inode_, name);
  if (entry && !entry->inode->isDirectory()) tree().listingUse().fileLookedUp();
  if (!entry && entry.error().code == ENOENT) return reply.noEntry(beliefIn(tree()));
  answer(std::move(reply), entry);
}

void TreeNode::mknod(Reply reply, const std::string& name, mode_t mode, dev_t device) {
  const Creator creator = reply.creator();
  answer(std::move(reply), tree().mknod(*inode_, name, mode, device, creator));
}

void TreeNode::mkdir(Reply reply, const std::string& name, mode_t mode) {
  const Creator creator = reply.creator();
  answer(std::move(reply), tree().mkdir(*inode_, name, mode, creator));
}

void TreeNode::symlink(Reply reply, const std::string& name, const std::string& target) {
  const Creator creator = reply.creator();
  answer(std::move(reply), tree().symlink(*inode_, name, target, creator));
}

void TreeNode::link(Reply reply, Node& target, const std::string& name) {
  if (target.inode() == nullptr) return reply.error(EXDEV);
  answer(std::move(reply), tree().link(*target.inode(), *inode_, name));
}

void TreeNode::rename(Reply reply, const std::string& name, Node& newParent,
                      const std::string& newName, unsigned flags) {
  if (newParent.inode() == nullptr) return reply.error(EXDEV);
  reply.status(tree().rename(*inode_, name, *newParent.inode(), newName, flags));
}

void TreeNode::unlink(Reply reply, const std::string& name) {
  reply.status(tree().unlink(*inode_, name));
}

void TreeNode::rmdir(Reply reply, const std::string& name) {
  reply.status(tree().rmdir(*inode_, name));
}

void TreeNode::readlink(Reply reply) {
  const auto target = tree().readlink(*inode_);
  if (!target) return reply.error(target.error());
  reply.link(*target);
}

void TreeNode::statfs(Reply reply) {
  const auto st = tree().statfs(*inode_);
  if (!st) return reply.error(st.error());
  reply.statistics(*st);
}

void TreeNode::getxattr(Reply reply, const std::string& name, size_t room) {
  if (name == kAccessAcl && isLeaseRoot()) {
    if (const auto holder = mount_.leaseNames.letsIn(tree().key())) {
      const Requester who = reply.requester();
      const std::string path = mount_.options().mountpoint + "/" + tree().key();
      if (who.uid != 0 && who.uid != *holder && !standsIn(who.pid, path)) {
        return reply.xattr(LeaseNames::privateAcl(), room);
      }
      return openLease(std::move(reply), [name, room](Reply held, TreeNode& node) {
        if (node.mount_.leaseNames.letsIn(node.tree().key())) {
          return held.xattr(LeaseNames::privateAcl(), room);
        }
        node.getxattr(std::move(held), name, room);
      });
    }
  }
  const auto value = tree().getxattr(*inode_, name);
  if (!value) return reply.error(value.error());
  reply.xattr(*value, room);
}

void TreeNode::listxattr(Reply reply, size_t room) {
  const auto names = tree().listxattr(*inode_);
  if (!names) return reply.error(names.error());
  std::string list;
  for (const std::string& name : *names) {
    // The kernel shows trusted attributes to nobody but root.
    if (reply.uid() != 0 && name.starts_with("trusted.")) continue;
    list.append(name).push_back('\0');
  }
  reply.xattr(list, room);
}

void TreeNode::setxattr(Reply reply, const std::string& name, const std::string& value, int flags) {
  if (name != kAccessAcl) return reply.status(tree().setxattr(*inode_, name, value, flags));
  if (!isLeaseRoot()) return setAcl(std::move(reply), value, flags);
  openLease(std::move(reply), [value, flags](Reply held, TreeNode& node) {
    node.setAcl(std::move(held), value, flags);
  });
}

void TreeNode::setAcl(Reply reply, const std::string& value, int flags) {
  Status done = tree().setxattr(*inode_, kAccessAcl, value, flags);
  if (done) done = dropSetgid(reply);
  reply.status(done);
}

// An ACL changes the mode, which takes the set-gid bit from a file whose group the caller is not
// of. We set it as root, and libfuse does not pass on that the kernel asks for this.
Status TreeNode::dropSetgid(const Reply& reply) {
  const auto st = tree().getattr(*inode_);
  if (!st) return Failure(st.error());
  if ((st->st_mode & S_ISGID) == 0 || reply.uid() == 0) return {};
  const Requester who = reply.requester(true);
  if (who.gid == st->st_gid || std::count(who.groups.begin(), who.groups.end(), st->st_gid) > 0) {
    return {};
  }
  SetAttributes wanted;
  wanted.mode = st->st_mode & ~S_ISGID;
  const auto set = tree().setattr(*inode_, wanted);
  return set ? Status() : Status(Failure(set.error()));
}

void TreeNode::removexattr(Reply reply, const std::string& name) {
  reply.status(tree().removexattr(*inode_, name));
}

}  // namespace kilnfs
