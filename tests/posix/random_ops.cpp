#include "tests/posix/random_ops.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "tests/posix/digest.h"

namespace kilnfs::testing {
namespace {

constexpr unsigned kUsers[] = {0, 0, 0, 4001, 4002};
constexpr const char* kNames[] = {"a", "b", "c", "d", "e", "f"};
constexpr mode_t kModes[] = {0755, 0777, 0644, 0666, 0700, 0, 01777, 02775, 04755, 06777};

std::string randomPath(std::mt19937& random) {
  std::string path = kNames[random() % std::size(kNames)];
  for (unsigned depth = random() % 4; depth > 0; --depth) {
    path += std::string("/") + kNames[random() % std::size(kNames)];
  }
  if (random() % 200 == 0) path += "/" + std::string(256, 'n');
  if (random() % 200 == 0) path += "/";
  return path;
}

std::string parentOf(const std::string& path) {
  const size_t slash = path.find_last_not_of('/') == std::string::npos
                           ? std::string::npos
                           : path.rfind('/', path.find_last_not_of('/'));
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string said(long result) {
  return result < 0 ? "errno " + std::to_string(errno) : std::to_string(result);
}

/// Acts as a user, in this thread alone.
class As {
 public:
  explicit As(unsigned user) {
    ::setfsgid(user);
    ::setfsuid(user);
  }
  ~As() {
    ::setfsuid(0);
    ::setfsgid(0);
  }
  As(const As&) = delete;
  As& operator=(const As&) = delete;
};

std::string bytes(const Operation& o) {
  std::string text(o.size, '\0');
  for (size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<char>('a' + (o.flags + i * 7) % 26);
  }
  return text;
}

int openFlags(unsigned flags) {
  constexpr int kAccess[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR};
  int out = kAccess[flags % 4];
  if ((flags & 4) != 0) out |= O_TRUNC;
  if ((flags & 24) == 24) out |= O_EXCL;
  if ((flags & 96) == 96) out |= O_APPEND;
  if ((flags & 0x380) == 0x380) out |= O_NOFOLLOW;
  if ((flags & 0x1c00) == 0x1c00) out |= O_DIRECTORY;
  return out | O_CLOEXEC | O_NONBLOCK;
}

}  // namespace

std::string Operation::text() const {
  static constexpr const char* kOps[] = {
      "create",    "open",      "close",     "mkdir",       "rmdir",     "unlink",
      "rename",    "link",      "symlink",   "mknod",       "chmod",     "chown",
      "truncate",  "times",     "setxattr",  "removexattr", "getxattr",  "list",
      "readlink",  "writeFile", "readFile",  "pwrite",      "pread",     "append",
      "ftruncate", "fchmod",    "fallocate", "map",         "copyRange", "holes"};
  static_assert(std::size(kOps) == static_cast<size_t>(Op::count));
  return std::string(kOps[static_cast<size_t>(op)]) + " user=" + std::to_string(user) + " " + path +
         " " + other + " slots=" + std::to_string(slot) + "," + std::to_string(slot2) +
         " flags=" + std::to_string(flags) + " " + std::to_string(offset) + "+" +
         std::to_string(size);
}

Operation randomOperation(std::mt19937& random) {
  Operation o;
  o.op = static_cast<Op>(random() % static_cast<unsigned>(Op::count));
  o.user = kUsers[random() % std::size(kUsers)];
  o.path = randomPath(random);
  o.other = randomPath(random);
  o.slot = random() % 6;
  o.slot2 = random() % 6;
  o.flags = random() % 8192;
  o.offset = random() % 20000;
  o.size = random() % 9000;
  return o;
}

Side::Side(const std::string& directory, bool changeTimes)
    : root_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
      changeTimes_(changeTimes) {}

std::string Side::run(const Operation& operation) {
  numbers_.clear();
  const std::vector<Seen> before = look(operation);
  for (const Seen& one : before) {
    if (one.there) identity(one.st);
  }
  std::string out;
  {
    const As as(operation.user);
    out = apply(operation);
  }
  const std::vector<Seen> after = look(operation);
  for (size_t i = 0; i < before.size(); ++i) out += "\n  " + describe(before[i], after[i]);
  struct stat st;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (!slots_[i].valid() || ::fstat(slots_[i].get(), &st) != 0) continue;
    out += "\n  open " + std::to_string(i) + ": " + identity(st);
  }
  return out;
}

std::vector<Side::Seen> Side::look(const Operation& o) const {
  std::vector<Seen> seen;
  for (const std::string& path : {o.path, parentOf(o.path), o.other, parentOf(o.other)}) {
    Seen one{path, false, {}};
    one.there = ::fstatat(root_.get(), path.c_str(), &one.st, AT_SYMLINK_NOFOLLOW) == 0;
    seen.push_back(one);
  }
  return seen;
}

std::string Side::identity(const struct stat& st) {
  const size_t number = numbers_.try_emplace(st.st_ino, numbers_.size()).first->second;
  char text[128];
  std::snprintf(text, sizeof text, "#%zu %o %u:%u links %u size %lld", number, st.st_mode,
                st.st_uid, st.st_gid, static_cast<unsigned>(st.st_nlink),
                S_ISDIR(st.st_mode) ? 0LL : static_cast<long long>(st.st_size));
  return text;
}

std::string Side::describe(const Seen& before, const Seen& after) {
  if (!after.there) return after.path + " -";
  std::string out = after.path + " " + identity(after.st);
  if (!before.there || before.st.st_ino != after.st.st_ino) return out;
  const auto changed = [](const struct timespec& a, const struct timespec& b) {
    return a.tv_sec != b.tv_sec || a.tv_nsec != b.tv_nsec;
  };
  if (changed(before.st.st_mtim, after.st.st_mtim)) out += " mtime";
  if (changeTimes_ && changed(before.st.st_ctim, after.st.st_ctim)) out += " ctime";
  return out;
}

std::string Side::apply(const Operation& o) {
  switch (o.op) {
    case Op::create:
    case Op::open: {
      if (slots_[o.slot].valid()) return "busy";
      const int flags = openFlags(o.flags) | (o.op == Op::create ? O_CREAT : 0);
      // What O_RDONLY|O_TRUNC does is unspecified; ext4 truncates, and so it is compared.
      const int fd =
          ::openat(root_.get(), o.path.c_str(), flags, kModes[o.size % std::size(kModes)]);
      if (fd < 0) return said(fd);
      slots_[o.slot].reset(fd);
      return "opened";
    }
    case Op::close:
      slots_[o.slot].reset();
      return "closed";
    case Op::chmod:
    case Op::chown:
    case Op::truncate:
    case Op::times:
    case Op::setxattr:
    case Op::removexattr:
    case Op::getxattr:
      return attribute(o);
    case Op::writeFile:
    case Op::readFile:
      return content(o);
    case Op::list:
      return listing(o.path);
    case Op::pwrite:
    case Op::pread:
    case Op::append:
    case Op::ftruncate:
    case Op::fchmod:
    case Op::fallocate:
    case Op::map:
    case Op::copyRange:
    case Op::holes:
      return data(o);
    default:
      return named(o);
  }
}

std::string Side::named(const Operation& o) {
  const int at = root_.get();
  const char* path = o.path.c_str();
  const char* other = o.other.c_str();
  const mode_t mode = kModes[o.size % std::size(kModes)];
  switch (o.op) {
    case Op::mkdir:
      return said(::mkdirat(at, path, mode));
    case Op::rmdir:
      return said(::unlinkat(at, path, AT_REMOVEDIR));
    case Op::unlink:
      return said(::unlinkat(at, path, 0));
    case Op::rename:
      return said(::renameat2(at, path, at, other,
                              o.flags % 5 == 0   ? RENAME_EXCHANGE
                              : o.flags % 5 == 1 ? RENAME_NOREPLACE
                                                 : 0));
    case Op::link:
      return said(::linkat(at, path, at, other, o.flags % 4 == 0 ? AT_SYMLINK_FOLLOW : 0));
    case Op::symlink:
      return said(::symlinkat(path, at, other));
    case Op::mknod:
      return said(::mknodat(at, path,
                            (o.flags % 3 == 0   ? S_IFIFO
                             : o.flags % 3 == 1 ? S_IFSOCK
                                                : S_IFREG) |
                                mode,
                            0));
    case Op::readlink: {
      char target[4096];
      const ssize_t n = ::readlinkat(at, path, target, sizeof target);
      return n < 0 ? said(n) : std::string(target, static_cast<size_t>(n));
    }
    default:
      return "no such operation";
  }
}

std::string Side::attribute(const Operation& o) {
  const int at = root_.get();
  const std::string full = "/proc/self/fd/" + std::to_string(at) + "/" + o.path;
  const std::string name = "user." + std::string(1, static_cast<char>('a' + o.flags % 3));
  const int follow = o.flags % 4 == 0 ? AT_SYMLINK_NOFOLLOW : 0;
  constexpr uid_t kOwners[] = {0, 4001, 4002, static_cast<uid_t>(-1)};
  switch (o.op) {
    case Op::chmod:
      return said(::fchmodat(at, o.path.c_str(), kModes[o.size % std::size(kModes)], 0));
    case Op::chown:
      return said(::fchownat(at, o.path.c_str(), kOwners[o.flags / 4 % 4],
                             kOwners[o.flags / 16 % 4], follow));
    case Op::truncate:
      return said(::truncate(full.c_str(), o.offset));
    case Op::times: {
      struct timespec times[2] = {{static_cast<time_t>(o.offset), o.size},
                                  {static_cast<time_t>(o.size), o.offset}};
      if (o.flags / 4 % 3 == 0) times[0].tv_nsec = UTIME_OMIT;
      if (o.flags / 16 % 3 == 0) times[1].tv_nsec = UTIME_NOW;
      return said(::utimensat(at, o.path.c_str(), o.flags / 64 % 4 == 0 ? nullptr : times, follow));
    }
    case Op::setxattr:
      return said(::lsetxattr(full.c_str(), name.c_str(), bytes(o).data(), o.size % 500,
                              static_cast<int>(o.flags / 4 % 3)));
    case Op::removexattr:
      return said(::lremovexattr(full.c_str(), name.c_str()));
    default: {
      std::string value(o.size % 600, '\0');
      const ssize_t n = ::lgetxattr(full.c_str(), name.c_str(), value.data(), value.size());
      if (n > 0 && !value.empty()) value.resize(static_cast<size_t>(n));
      return said(n) + (n > 0 ? " " + value : "");
    }
  }
}

std::string Side::content(const Operation& o) {
  const bool writes = o.op == Op::writeFile;
  const int flags = (writes ? O_WRONLY | O_CREAT | (o.flags % 2 == 0 ? O_TRUNC : 0) : O_RDONLY) |
                    O_CLOEXEC | O_NONBLOCK;
  const UniqueFd fd(::openat(root_.get(), o.path.c_str(), flags, 0644));
  if (!fd.valid()) return said(-1);
  if (writes) {
    const std::string text = bytes(o);
    return said(::pwrite(fd.get(), text.data(), text.size(), o.offset % 5000));
  }
  std::string out(40000, '\0');
  const ssize_t n = ::read(fd.get(), out.data(), out.size());
  return said(n) + (n > 0 ? " " + digestOf(out.substr(0, static_cast<size_t>(n))) : "");
}

std::string Side::listing(const std::string& path) {
  const int fd = ::openat(root_.get(), path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return said(fd);
  std::set<std::string> names;
  DIR* dir = ::fdopendir(fd);
  while (const dirent* entry = ::readdir(dir)) {
    names.insert(std::string(entry->d_name) + ":" + std::to_string(entry->d_type));
  }
  ::closedir(dir);
  std::string out;
  for (const std::string& name : names) out += name + " ";
  return out;
}

std::string Side::mapped(const Operation& o) {
  const int fd = slots_[o.slot].get();
  struct stat st;
  if (::fstat(fd, &st) != 0 || st.st_size == 0 || !S_ISREG(st.st_mode)) return "nothing to map";
  const size_t length = static_cast<size_t>(st.st_size);
  const bool writes = o.flags % 2 == 0;
  void* map =
      ::mmap(nullptr, length, writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return said(-1);
  auto* at = static_cast<char*>(map);
  if (writes) {
    const std::string text = bytes(o);
    const size_t begin = o.offset % length;
    std::copy_n(text.begin(), std::min(text.size(), length - begin), at + begin);
    ::msync(map, length, MS_SYNC);
  }
  const std::string out = digestOf({at, length});
  ::munmap(map, length);
  return out;
}

std::string Side::data(const Operation& o) {
  const int fd = slots_[o.slot].get();
  if (fd < 0) return "nothing open";
  constexpr int kAllocate[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
  const std::string text = bytes(o);
  if (struct stat st; ::fstat(fd, &st) != 0 || (!S_ISREG(st.st_mode) && o.op != Op::fchmod)) {
    // Where directories end is the file system's own affair; and a write to a fifo is seen by no
    // file system in user space, so changes no times there.
    return "no file";
  }
  switch (o.op) {
    case Op::pwrite:
      return said(::pwrite(fd, text.data(), text.size(), o.offset));
    case Op::append:
      ::lseek(fd, 0, SEEK_END);
      return said(::write(fd, text.data(), text.size()));
    case Op::ftruncate:
      return said(::ftruncate(fd, o.offset));
    case Op::fchmod:
      return said(::fchmod(fd, kModes[o.size % std::size(kModes)]));
    case Op::fallocate:
      return said(::fallocate(fd, kAllocate[o.flags % 5], o.offset, o.size));
    case Op::map:
      return mapped(o);
    case Op::copyRange: {
      const int to = slots_[o.slot2].get();
      loff_t from = o.offset;
      loff_t at = o.flags;
      if (to < 0) return "nothing open";
      return said(::copy_file_range(fd, &from, to, &at, o.size, 0));
    }
    case Op::holes:
      return said(::lseek(fd, static_cast<off_t>(1) << 40, SEEK_DATA)) + " " +
             said(::lseek(fd, 0, SEEK_END));
    default: {
      std::string out(o.size, '\0');
      const ssize_t n = ::pread(fd, out.data(), out.size(), o.offset);
      return said(n) + (n > 0 ? " " + digestOf(out.substr(0, static_cast<size_t>(n))) : "");
    }
  }
}

void Side::closeAll() {
  for (UniqueFd& slot : slots_) slot.reset();
}

std::string Side::wholeTree() {
  numbers_.clear();
  std::string out;
  walk(".", out);
  return out;
}

void Side::walk(const std::string& path, std::string& out) {
  struct stat st;
  if (::fstatat(root_.get(), path.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    out += path + " " + said(-1) + "\n";
    return;
  }
  out += path + " " + identity(st);
  Operation read;
  read.op = S_ISREG(st.st_mode) ? Op::readFile : Op::readlink;
  read.path = path;
  if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)) out += " " + apply(read);
  out += "\n";
  if (!S_ISDIR(st.st_mode)) return;
  std::set<std::string> names;
  DIR* dir = ::fdopendir(::openat(root_.get(), path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (dir == nullptr) return;
  while (const dirent* entry = ::readdir(dir)) names.insert(entry->d_name);
  ::closedir(dir);
  names.erase(".");
  names.erase("..");
  for (const std::string& name : names) walk(path + "/" + name, out);
}

}  // namespace kilnfs::testing
