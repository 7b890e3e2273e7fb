#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <set>

#include "fs/own_nodes.h"
#include "store/tree/directory_stream.h"

namespace kilnfs {
namespace {

class LogHandle : public Handle {
 public:
  explicit LogHandle(std::shared_ptr<UniqueFd> fd) : fd_(std::move(fd)) {}
  void read(Reply reply, off_t offset, size_t size) override {
    reply.dataOf(fd_->get(), offset, size);
  }

 private:
  const std::shared_ptr<UniqueFd> fd_;
};

// Opened without following a link: the log of a result of OBuilder's is a file of that result.
UniqueFd openLog(const std::string& path, int flags) {
  return UniqueFd(::open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

// One attempt's log: a new attempt has a new file, and is a new node.
class LogFile : public OwnNode {
 public:
  LogFile(Mount& mount, Id id, std::string path, const struct stat& st)
      : mount_(mount), id_(std::move(id)), path_(std::move(path)), first_(st) {}

  struct stat attributes() const override {
    // Readers keep what they opened, though it may have been replaced or removed since.
    if (const auto fd = openFile()) return seen(statOf(fd->get()));
    const UniqueFd fd = openLog(path_, O_PATH);
    return seen(statOf(fd.get()));
  }

  void open(Reply reply, int flags) override {
    if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0) return reply.error(EPERM);
    auto fd = openFile();
    if (!fd) {
      fd = std::make_shared<UniqueFd>(openLog(path_, O_RDONLY));
      if (!fd->valid()) return reply.error(errno);
      if (!same(statOf(fd->get()))) return reply.error(ESTALE);
      const std::lock_guard lock(mutex_);
      open_ = fd;
    }
    OpenAnswer answer;
    // While it grows nobody may keep pages of it; afterwards it changes no more.
    answer.direct = mount_.builds().underWay(id_);
    mount_.answerOpen(std::move(reply), std::make_shared<LogHandle>(std::move(fd)), answer);
  }

 private:
  std::shared_ptr<UniqueFd> openFile() const {
    const std::lock_guard lock(mutex_);
    return open_.lock();
  }
  bool same(const struct stat& st) const {
    return st.st_ino == first_.st_ino && st.st_dev == first_.st_dev;
  }
  struct stat statOf(int fd) const {
    struct stat st;
    return fd >= 0 && ::fstat(fd, &st) == 0 && same(st) ? st : first_;
  }
  struct stat seen(struct stat st) const {
    st.st_ino = number();
    st.st_nlink = 1;
    st.st_mode &= ~static_cast<mode_t>(0222);
    return st;
  }

  Mount& mount_;
  const Id id_;
  const std::string path_;
  const struct stat first_;
  mutable std::mutex mutex_;
  std::weak_ptr<UniqueFd> open_;  // guarded by mutex_
};

class Logs : public OwnDirectory {
 public:
  explicit Logs(Mount& mount) : OwnDirectory(mount, 0755) {}

  void lookup(Reply reply, const std::string& name) override {
    const auto id = Id::parse(name);
    if (!id) return reply.noEntry(kForever);
    const auto path = mount_.store().logFile(*id);
    if (!path) return reply.error(ENOENT);
    const UniqueFd fd = openLog(*path, O_PATH);
    struct stat st;
    if (!fd.valid() || ::fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) {
      return reply.error(ENOENT);
    }
    const auto node = files_.get({*id, st.st_dev, st.st_ino},
                                 [&] { return std::make_shared<LogFile>(mount_, *id, *path, st); });
    answer(std::move(reply), node);
  }

  void unlink(Reply reply, const std::string& name) override {
    const auto id = Id::parse(name);
    if (!id) return reply.error(ENOENT);
    mount_.later(std::move(reply), [&mount = mount_, id = *id](Reply held) {
      const auto done = mount.store().removeLog(id);
      mount.answerVerb(std::move(held), "rm logs/" + id.str(), done);
    });
  }

 protected:
  std::vector<ListItem> list() override {
    std::set<std::string> names;
    eachName(mount_.store().logDir(), [&](const std::string& name) { names.insert(name); });
    // Results that OBuilder made have their logs inside.
    eachName(mount_.store().resultDir(), [&](const std::string& name) {
      if (names.contains(name)) return;
      const auto id = Id::parse(name);
      if (id && mount_.store().logFile(*id)) names.insert(name);
    });
    std::vector<ListItem> items;
    for (const std::string& name : names) {
      items.push_back({name, std::hash<std::string>()(name) | 1, S_IFREG});
    }
    return items;
  }

 private:
  static void eachName(const std::string& path, const std::function<void(const std::string&)>& fn) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) return;
    DirectoryStream stream(std::move(fd));
    std::ignore = stream.read(0, [&](const DirectoryStream::Item& item) {
      if (Name::valid(item.name)) fn(item.name);
      return true;
    });
  }

  WeakIndex<std::tuple<Id, dev_t, ino_t>, LogFile> files_;
};

}  // namespace

std::shared_ptr<OwnDirectory> makeLogs(Mount& mount) {
  return std::make_shared<Logs>(mount);
}

}  // namespace kilnfs
