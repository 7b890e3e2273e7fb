// A build may leave any tree: saving, listing, building on, comparing and deleting it never
// crashes, waits for nobody, gives back what was there, and changes nothing outside.
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <vector>

#include "store/tree/tree.h"
#include "tests/fuzz/site.h"

namespace kilnfs::fuzz {
namespace {

std::string nameOf(Bytes& bytes) {
  static constexpr const char* kNames[] = {"a",      "b",     "c",      "log",
                                           "rootfs", ".wh.a", "\xff\n", "-rf"};
  const uint8_t kind = bytes.byte();
  if (kind < 200) return kNames[kind % std::size(kNames)];
  std::string name = kind < 205 ? std::string(255, 'n') : bytes.text(20);
  std::erase_if(name, [](char c) { return c == '/' || c == '\0'; });
  return name == ".." || name == "." ? "dots" : name;
}

/// Makes a tree, standing in one directory of it at a time.
class Maker {
 public:
  Maker(const std::string& top, std::string outside) : outside_(std::move(outside)), fds_(1) {
    fds_[0].reset(::open(top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  void make(Bytes& bytes) {
    for (int steps = 0; !bytes.done() && steps < 60; ++steps) step(bytes);
  }

 private:
  int at() const { return fds_.back().get(); }

  void step(Bytes& bytes) {
    const uint8_t what = bytes.byte() % 12;
    const std::string name = nameOf(bytes);
    const std::string other = nameOf(bytes);
    if (what == 0) {
      const UniqueFd file(::openat(at(), name.c_str(),
                                   O_CREAT | O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644));
      const std::string data = bytes.text(30);
      if (::pwrite(file.get(), data.data(), data.size(), bytes.byte() * 1000) < 0) return;
    } else if (what == 1) {
      enter(name);
    } else if (what == 2) {
      if (fds_.size() > 1) fds_.pop_back();
    } else if (what == 3) {
      for (int n = bytes.byte(); n > 0; --n) enter("deep");
      fds_.resize(1);
    } else if (what == 4) {
      const std::string targets[] = {outside_, outside_ + "/f", "..", "../../..", name,
                                     "",       bytes.text(50)};
      ::symlinkat(targets[bytes.byte() % 7].c_str(), at(), name.c_str());
    } else if (what == 5) {
      const mode_t kinds[] = {S_IFIFO, S_IFCHR, S_IFBLK, S_IFSOCK};
      ::mknodat(at(), name.c_str(), kinds[bytes.byte() % 4] | 0666,
                makedev(bytes.byte() % 3, bytes.byte() % 8));
    } else if (what == 6) {
      ::linkat(at(), name.c_str(), fds_.front().get(), other.c_str(), 0);
    } else if (what == 7) {
      ::renameat(at(), name.c_str(), fds_.front().get(), other.c_str());
    } else {
      attributes(what, name, bytes);
    }
  }
  void enter(const std::string& name) {
    ::mkdirat(at(), name.c_str(), 0755);
    UniqueFd next(::openat(at(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (next.valid() && fds_.size() < 300) fds_.push_back(std::move(next));
  }
  void attributes(uint8_t what, const std::string& name, Bytes& bytes) {
    const UniqueFd file(::openat(at(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat st = {};
    if (::fstat(file.get(), &st) != 0 || S_ISLNK(st.st_mode)) return;
    const std::string path = "/proc/self/fd/" + std::to_string(file.get());
    if (what == 8) {
      ::chmod(path.c_str(), static_cast<mode_t>(bytes.byte() << 8 | bytes.byte()) & 07777);
    } else if (what == 9) {
      if (::chown(path.c_str(), bytes.byte(), bytes.byte()) != 0) return;
    } else if (what == 10) {
      const char* names[] = {"user.x",
                             "trusted.overlay.opaque",
                             "trusted.overlay.redirect",
                             "security.capability",
                             "system.posix_acl_default",
                             "trusted.x"};
      const std::string value = bytes.text(60);
      ::setxattr(path.c_str(), names[bytes.byte() % 6], value.data(), value.size(), 0);
    } else {
      const struct timespec times[2] = {{bytes.byte() * 100000000L, 0}, {-bytes.byte(), 1}};
      ::utimensat(AT_FDCWD, path.c_str(), times, 0);
    }
  }

  const std::string outside_;
  std::vector<UniqueFd> fds_;
};

/// What somebody does to the tree who sees it through the mount.
void change(const std::shared_ptr<Workspace>& workspace, Bytes bytes) {
  const auto tree = Tree::create(workspace, 7);
  const Creator me;
  auto root = tree->root();
  if (!root) return;
  InodePtr at = root->inode;
  for (int steps = 0; !bytes.done() && steps < 60; ++steps) {
    const uint8_t what = bytes.byte() % 9;
    const std::string name = nameOf(bytes);
    const std::string other = nameOf(bytes);
    auto found = tree->lookup(*at, name);
    if (what == 0 && found && S_ISDIR(found->attributes.st_mode)) at = found->inode;
    if (what == 1) at = root->inode;
    if (what == 2) (void)tree->mkdir(*at, name, 0755, me);
    if (what == 3) (void)tree->create(*at, name, O_RDWR, 04755, me);
    if (what == 4) (void)tree->rename(*at, name, *root->inode, other, bytes.byte() % 3);
    if (what == 5) (void)tree->unlink(*at, name);
    if (what == 6) (void)tree->rmdir(*at, name);
    if (what == 7 && found) (void)tree->link(*found->inode, *at, other);
    if (what == 8 && found) {
      (void)tree->setxattr(*found->inode, "user.y", other, 0);
      SetAttributes wanted;
      wanted.mode = bytes.byte();
      if (!S_ISLNK(found->attributes.st_mode)) (void)tree->setattr(*found->inode, wanted);
    }
  }
}

void list(const std::shared_ptr<Tree>& tree, Inode& directory, int depth) {
  std::vector<std::string> names;
  const Status done = tree->readDirectory(directory, 0, [&](const Tree::Item& item) {
    const std::string name(item.name);
    if (name != "." && name != "..") names.push_back(name);
    return true;
  });
  if (!done) broken("not listed");
  for (const std::string& name : names) {
    auto entry = tree->lookup(directory, name);
    if (!entry) broken("listed, and not there");
    (void)tree->listxattr(*entry->inode);
    if (S_ISLNK(entry->attributes.st_mode)) (void)tree->readlink(*entry->inode);
    if (S_ISDIR(entry->attributes.st_mode) && depth < 400) list(tree, *entry->inode, depth + 1);
  }
}

void run(Bytes bytes) {
  static const Site site;
  const std::unique_ptr<Store> store = openStore(site.store());
  Interrupt interrupt;
  const Id base = *Id::parse("base");
  const Id over = *Id::parse("over");
  const Bytes again = bytes;
  auto made = store->build(base, {}, {}, interrupt, [&](const std::shared_ptr<Workspace>& tmp) {
    Maker(tmp->path(), site.outside()).make(bytes);
    return Status();
  });
  if (!made) broken("not saved: " + made.error().message);
  made = store->build(over, base, {}, interrupt, [&](const std::shared_ptr<Workspace>& tmp) {
    change(tmp, again);
    return Status();
  });
  if (!made) broken("not saved: " + made.error().message);
  for (const Id& id : {base, over}) {
    const auto result = store->result(id);
    if (!result || !*result) broken("saved, and not there");
    const auto tree = Tree::create(*result, 7);
    if (auto root = tree->root()) list(tree, *root->inode, 0);
  }
  tells(store->completeDeletes());
  tells(store->completeRecords(interrupt));
  const auto verified = store->verify({}, false, interrupt);
  if (!verified) broken("not verified: " + verified.error().message);
  for (const Verified& one : *verified) {
    if (one.action != Verified::Action::ok)
      broken(one.id + " " + actionName(one.action) + ": " + one.why);
  }
  if (auto gone = store->remove(base, true); !gone) broken("not deleted: " + gone.error().message);
  if (auto gone = store->completeDeletes(); !gone) broken("not deleted: " + gone.error().message);
  for (const char* area : {"/result", "/result-tmp"}) {
    if (!std::filesystem::is_empty(site.store() + area)) broken("left in " + std::string(area));
  }
  site.check();
}

}  // namespace
}  // namespace kilnfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1000) kilnfs::fuzz::run({data, size});
  return 0;
}
