// Opening files of trees, and what an open file does.

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <ctime>

#include "fs/fuse_compat.h"
#include "fs/tree_node.h"
#include "store/tree/system.h"

namespace kilnfs {
namespace {

// Bytes up to which a file that is read is put into the kernel's page cache when it is opened.
constexpr off_t kSmall = 16 << 10;

SetId setIdAfter(const WriteData& data) {
  return data.clearSetId() ? SetId::dropped : SetId::kept;
}

class FileHandle : public Handle {
 public:
  FileHandle(Mount& mount, std::unique_ptr<File> file) : mount_(mount), file_(std::move(file)) {}
  File* file() override { return file_.get(); }
  void closed() override {
    // Only who may write can have mapped it for that, and has to be followed: others that have it
    // open keep nobody from publishing.
    if (mount_.opens.end(file_->inode()->number()) && file_->writable()) file_->mayBeMapped();
  }
  void abandoned() override {
    closed();
    if (file_->writable()) file_->mayBeMapped();
  }

  void read(Reply reply, off_t offset, size_t size) override {
    file_->inode()->pagesGiven = true;
    reply.dataOf(file_->fd(), offset, size);
  }

  void write(Reply reply, const WriteData& data, off_t offset) override {
    const auto written = data.append() ? append(data) : writeAt(data, offset);
    if (written) {
      reply.written(*written);
    } else {
      reply.error(written.error());
    }
  }

  void sync(Reply reply, bool dataOnly) override { reply.status(file_->sync(dataOnly)); }
  void allocate(Reply reply, int mode, off_t offset, off_t length) override {
    reply.status(file_->allocate(mode, offset, length, setIdAfter(reply)));
  }
  void seek(Reply reply, off_t offset, int whence) override {
    const auto found = file_->seek(offset, whence);
    if (found) {
      reply.offset(*found);
    } else {
      reply.error(found.error());
    }
  }

 private:
  Expected<size_t> append(const WriteData& data) {
    const auto bytes = data.copy();
    if (!bytes) return Failure(bytes.error());
    return file_->append(bytes->data(), bytes->size(), setIdAfter(data));
  }
  Expected<size_t> writeAt(const WriteData& data, off_t offset) {
    return file_->write([&](int fd) { return data.writeTo(fd, offset); }, setIdAfter(data));
  }

  Mount& mount_;
  const std::unique_ptr<File> file_;
};

// Registers a file with the kernel, which will read and write it with the rights that this thread
// has now: without the one to leave set-id bits in place. It opens the file anew for each of its
// opens, as that one is for; what is registered is for reading, or it would look like a mapping for
// writing for as long as anybody reads the file.
int enroll(Mount& mount, fuse_req* request, const File& file, bool readOnlyTree) {
  int backing = 0;
  if (readOnlyTree) {
    const UniqueFd quiet = mount.quiet.reopen(file.fd());
    if (!quiet.valid()) return 0;
    backing = fuseEnroll(request, quiet.get());
  } else {
    const auto reader = reopen(file.fd(), O_RDONLY);
    if (!reader) return 0;
    const WithoutFsetid less;
    backing = fuseEnroll(request, reader->get());
  }
  if (backing == 0 && mount.passthrough.exchange(false)) {
    spdlog::warn("files are not passed through: the store's file system does not take it");
  }
  return backing;
}

}  // namespace

// What the kernel may believe of the attributes: nothing while they may change behind its back.
double TreeNode::timeout(const Inode& inode) const {
  const bool unseen = mount_.opens.mappable(inode.number()) || tree().mappedForWriting(inode);
  return unseen ? 0 : beliefIn(tree());
}

// Whether its reader is better off with the page cache, filled in one go: what it takes to pass an
// open through is more than a small file is worth, and comes again with each. Who writes to it
// while it is open for reading does so through the page cache, too. Not where reading moves the
// access time: only of what it reads does the kernel know that it asks again for that.
bool TreeNode::belongsInCache(const File& file, int flags) const {
  const struct stat& st = file.atOpening();
  if ((flags & (O_ACCMODE | O_TRUNC | O_DIRECT)) != O_RDONLY || st.st_size > kSmall) return false;
  return !tree().changedElsewhere() && (tree().readOnly() || (flags & O_NOATIME) != 0 ||
                                        !mount_.accessTimes.move(st, std::time(nullptr)));
}

// Not what has set-id bits: those stay when root writes, which the kernel does with one user's
// rights.
bool TreeNode::mayPassThrough(const File& file) const {
  return mount_.passthrough && tree().mayBypass(*file.inode()) &&
         !(file.writable() && setIdOf(file.atOpening()) != 0);
}

OpenAnswer TreeNode::admit(const Reply& reply, const File& file, int flags) const {
  Inode& inode = *file.inode();
  const bool mappable = file.writable() && (flags & O_ACCMODE) == O_RDWR;
  const bool appends = (flags & O_APPEND) != 0;
  OpenAnswer answer;
  answer.backing = mount_.opens.begin(inode.number(), mappable, [&] {
    // Known only now, as whoever could map it has it open before.
    const bool mapped = inode.pagesBypassed || tree().mappedForWriting(inode);
    if (!mapped && belongsInCache(file, flags)) {
      if (!inode.pagesGiven.exchange(true)) mount_.givePages(inode.number(), file.fd(), kSmall);
      return 0;
    }
    // Nor is what appends better off, but for what others have mapped past the page cache.
    if (!mayPassThrough(file) || (appends && !mapped)) return 0;
    return enroll(mount_, reply.request(), file, tree().readOnly());
  });
  // Trees change only through this mount, so the kernel's pages are right, but for what is mapped
  // past them. So they are for O_DIRECT, which the kernel itself keeps coherent with them.
  answer.keepCache = answer.backing == 0 && !tree().changedElsewhere() && !inode.pagesBypassed;
  // What appends comes by us, though others of the file don't: the kernel would go on appending
  // after the flag has been taken away. Only what it maps is passed through.
  answer.direct = tree().changedElsewhere() || (appends && answer.backing != 0);
  if (answer.backing != 0 && mappable) inode.pagesBypassed = true;
  if (answer.backing != 0) inode.pagesGiven = false;
  return answer;
}

void TreeNode::open(Reply reply, int flags) {
  auto file = tree().open(*inode_, flags, reply.uid() == 0);
  if (!file) return reply.error(file.error());
  const OpenAnswer answer = admit(reply, **file, flags);
  if (answer.backing != 0 && timeout(*inode_) == 0) mount_.attributesChanged(number());
  mount_.answerOpen(std::move(reply), std::make_shared<FileHandle>(mount_, std::move(*file)),
                    answer);
}

void TreeNode::create(Reply reply, const std::string& name, int flags, mode_t mode) {
  const Creator creator = reply.creator();
  answer(std::move(reply), flags, tree().create(*inode_, name, flags, mode, creator));
}

void TreeNode::createUnnamed(Reply reply, int flags, mode_t mode) {
  const Creator creator = reply.creator();
  answer(std::move(reply), flags, tree().createUnnamed(*inode_, flags, mode, creator));
}

void TreeNode::answer(Reply reply, int flags, Expected<Tree::Created> created) const {
  if (!created) return reply.error(created.error());
  const NodeRef node(created->entry.inode);
  OpenAnswer open = admit(reply, *created->file, flags);
  const EntryAnswer entry{node.number(), created->entry.attributes, beliefIn(tree()),
                          timeout(*created->entry.inode)};
  mount_.nodes.remember(node);
  open.handle = mount_.handles.add(std::make_shared<FileHandle>(mount_, std::move(created->file)));
  if (reply.created(entry, open)) return;
  mount_.close(open.handle);
  mount_.nodes.forget(entry.node, 1);
}

}  // namespace kilnfs
