// LD_PRELOAD: makes one call of the C library fail, as a disk that is failing or full would. For
// tests only.
//
// $CALLS_SHIM names a file of the layout of `Control`, which is mapped: whoever has it too arms a
// kind of call and reads what was counted. Only calls on what is below $CALLS_SHIM_BELOW are
// counted, and can fail. Many functions are one kind: a tester does not care whether a file was
// opened by open or openat2.
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

enum Kind {
  open_,
  close_,
  stat_,
  read_,
  write_,
  splice_,
  readdir_,
  fsync_,
  syncfs_,
  rename_,
  link_,
  unlink_,
  mkdir_,
  mknod_,
  symlink_,
  readlink_,
  getxattr_,
  setxattr_,
  listxattr_,
  removexattr_,
  chmod_,
  chown_,
  utimens_,
  truncate_,
  fallocate_,
  copyRange_,
  lseek_,
  clone_,
  statvfs_,
  access_,
  kKinds
};

constexpr std::array<const char*, kKinds> kNames = {
    "open",      "close",           "stat",    "read",     "write",    "splice",
    "readdir",   "fsync",           "syncfs",  "rename",   "link",     "unlink",
    "mkdir",     "mknod",           "symlink", "readlink", "getxattr", "setxattr",
    "listxattr", "removexattr",     "chmod",   "chown",    "utimens",  "truncate",
    "fallocate", "copy_file_range", "lseek",   "clone",    "statvfs",  "access"};

struct Control {
  std::atomic<int32_t> kinds;      // how many counts there are; written here
  std::atomic<int32_t> armed;      // a kind, or -1
  std::atomic<int32_t> countdown;  // how many calls of that kind until the one that fails
  std::atomic<int32_t> code;       // the errno
  std::atomic<int32_t> fired;      // how many have failed
  char match[100];                 // only calls on paths that hold this are counted
  struct {
    char name[20];
    std::atomic<int32_t> count;
  } counts[kKinds];
  char where[400];  // the path of what failed last
};

template <class Fn>
Fn real(const char* name) {
  return reinterpret_cast<Fn>(::dlsym(RTLD_NEXT, name));
}

#define REAL(name) static const auto fn = real<decltype(&::name)>(#name)

// Never destroyed: calls come until the process is gone.
const std::string& below() {
  static const auto* const prefix = [] {
    const char* text = std::getenv("CALLS_SHIM_BELOW");
    return new std::string(std::string(text != nullptr ? text : "") + "/");
  }();
  return *prefix;
}

Control* control() {
  static Control* const mapped = []() -> Control* {
    static const auto open = real<int (*)(const char*, int, ...)>("open64");
    static const auto close = real<int (*)(int)>("close");
    const char* name = std::getenv("CALLS_SHIM");
    const int fd = name != nullptr ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return nullptr;
    void* at = ::mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) return nullptr;
    auto* made = static_cast<Control*>(at);
    for (int kind = 0; kind < kKinds; ++kind) {
      std::strncpy(made->counts[kind].name, kNames[static_cast<size_t>(kind)],
                   sizeof made->counts[kind].name - 1);
    }
    made->kinds = kKinds;
    return made;
  }();
  return mapped;
}

std::string pathOf(int fd) {
  static const auto fn = real<ssize_t (*)(const char*, char*, size_t)>("readlink");
  char text[4096];
  const ssize_t n = fn(("/proc/self/fd/" + std::to_string(fd)).c_str(), text, sizeof text);
  return {text, n > 0 ? static_cast<size_t>(n) : 0};
}

std::string pathOf(int dirFd, const char* name) {
  if (name == nullptr || *name == '\0') return pathOf(dirFd);
  constexpr const char* kProc = "/proc/self/fd/";
  if (std::strncmp(name, kProc, std::strlen(kProc)) == 0) {
    return pathOf(std::atoi(name + std::strlen(kProc)));
  }
  if (*name == '/' || dirFd == AT_FDCWD) return name;
  return pathOf(dirFd) + "/" + name;
}

/// Counts a call; whether it is to fail, with errno set.
bool fails(Kind kind, const std::string& path) {
  Control* shared = control();
  if (shared == nullptr || path.compare(0, below().size(), below()) != 0 ||
      path.find(shared->match) == std::string::npos) {
    return false;
  }
  ++shared->counts[kind].count;
  if (shared->armed != kind || --shared->countdown != 0) return false;
  std::strncpy(shared->where, path.c_str(), sizeof shared->where - 1);
  ++shared->fired;
  errno = shared->code;
  return true;
}

// A child that has yet to execute its program counts for nothing. What threads that it does not
// have held when it was forked stays locked in it, and with sanitizers memory is such a thing.
std::atomic<bool> forked{false};

[[gnu::constructor]] void noticeForks() {
  ::pthread_atfork(nullptr, nullptr, [] { forked = true; });
}

/// As above, for the descriptor or path of a call that must not disturb errno.
template <class... Where>
bool failsAt(Kind kind, Where... where) {
  if (forked) return false;
  const int saved = errno;
  const bool failed = fails(kind, pathOf(where...));
  if (!failed) errno = saved;
  return failed;
}

mode_t modeOf(int flags, va_list args) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
}

}  // namespace

// What a function of the C library takes, by the names of its parameters.
#define SHIM(result, failure, name, kind, where, parameters, arguments) \
  result name parameters {                                              \
    REAL(name);                                                         \
    if (failsAt where) return failure;                                  \
    return fn arguments;                                                \
  }

extern "C" {
/// What OpenSSL keeps for a thread is freed by the thread's end, which may come after that of main.
const char* __lsan_default_suppressions();
const char* __lsan_default_suppressions() {
  return "leak:CRYPTO_zalloc";
}

int open64(const char* path, int flags, ...) {
  static const auto fn = real<int (*)(const char*, int, ...)>("open64");
  va_list args;
  va_start(args, flags);
  const mode_t mode = modeOf(flags, args);
  va_end(args);
  return failsAt(open_, AT_FDCWD, path) ? -1 : fn(path, flags, mode);
}

int openat64(int dirFd, const char* path, int flags, ...) {
  static const auto fn = real<int (*)(int, const char*, int, ...)>("openat64");
  va_list args;
  va_start(args, flags);
  const mode_t mode = modeOf(flags, args);
  va_end(args);
  return failsAt(open_, dirFd, path) ? -1 : fn(dirFd, path, flags, mode);
}

long syscall(long number, ...) {
  static const auto fn = real<long (*)(long, ...)>("syscall");
  va_list args;
  va_start(args, number);
  std::array<long, 6> a{};
  for (long& each : a) each = va_arg(args, long);
  va_end(args);
  if (number == SYS_openat2 &&
      failsAt(open_, static_cast<int>(a[0]), reinterpret_cast<const char*>(a[1]))) {
    return -1;
  }
  if (number == SYS_getdents64 && failsAt(readdir_, static_cast<int>(a[0]))) return -1;
  return fn(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int close(int fd) {
  REAL(close);
  // Closed all the same: that is what the kernel does.
  const bool failed = failsAt(close_, fd);
  const int code = errno;
  const int result = fn(fd);
  if (!failed) return result;
  errno = code;
  return -1;
}

struct dirent64* readdir64(DIR* dir) {
  REAL(readdir64);
  return failsAt(readdir_, ::dirfd(dir)) ? nullptr : fn(dir);
}

int ioctl(int fd, unsigned long request, ...) noexcept {
  static const auto fn = real<int (*)(int, unsigned long, ...)>("ioctl");
  va_list args;
  va_start(args, request);
  void* argument = va_arg(args, void*);
  va_end(args);
  constexpr unsigned long kFiclone = 0x40049409;
  if (request == kFiclone && failsAt(clone_, fd)) return -1;
  return fn(fd, request, argument);
}

// clang-format off
SHIM(int, -1, stat64, stat_, (stat_, AT_FDCWD, p), (const char* p, struct stat64* s) noexcept, (p, s))
SHIM(int, -1, lstat64, stat_, (stat_, AT_FDCWD, p), (const char* p, struct stat64* s) noexcept, (p, s))
SHIM(int, -1, fstat64, stat_, (stat_, f), (int f, struct stat64* s) noexcept, (f, s))
SHIM(int, -1, fstatat64, stat_, (stat_, f, p), (int f, const char* p, struct stat64* s, int g) noexcept, (f, p, s, g))
SHIM(ssize_t, -1, read, read_, (read_, f), (int f, void* b, size_t n), (f, b, n))
SHIM(ssize_t, -1, pread64, read_, (read_, f), (int f, void* b, size_t n, off64_t o), (f, b, n, o))
SHIM(ssize_t, -1, write, write_, (write_, f), (int f, const void* b, size_t n), (f, b, n))
SHIM(ssize_t, -1, pwrite64, write_, (write_, f), (int f, const void* b, size_t n, off64_t o), (f, b, n, o))
SHIM(ssize_t, -1, pwritev64v2, write_, (write_, f), (int f, const struct iovec* v, int n, off64_t o, int g), (f, v, n, o, g))
SHIM(int, -1, fsync, fsync_, (fsync_, f), (int f), (f))
SHIM(int, -1, fdatasync, fsync_, (fsync_, f), (int f), (f))
SHIM(int, -1, syncfs, syncfs_, (syncfs_, f), (int f) noexcept, (f))
SHIM(int, -1, rename, rename_, (rename_, AT_FDCWD, o), (const char* o, const char* n) noexcept, (o, n))
SHIM(int, -1, renameat, rename_, (rename_, d, o), (int d, const char* o, int e, const char* n) noexcept, (d, o, e, n))
SHIM(int, -1, renameat2, rename_, (rename_, d, o), (int d, const char* o, int e, const char* n, unsigned g) noexcept, (d, o, e, n, g))
SHIM(int, -1, linkat, link_, (link_, e, n), (int d, const char* o, int e, const char* n, int g) noexcept, (d, o, e, n, g))
SHIM(int, -1, unlink, unlink_, (unlink_, AT_FDCWD, p), (const char* p) noexcept, (p))
SHIM(int, -1, unlinkat, unlink_, (unlink_, d, p), (int d, const char* p, int g) noexcept, (d, p, g))
SHIM(int, -1, mkdir, mkdir_, (mkdir_, AT_FDCWD, p), (const char* p, mode_t m) noexcept, (p, m))
SHIM(int, -1, mkdirat, mkdir_, (mkdir_, d, p), (int d, const char* p, mode_t m) noexcept, (d, p, m))
SHIM(int, -1, mknodat, mknod_, (mknod_, d, p), (int d, const char* p, mode_t m, dev_t v) noexcept, (d, p, m, v))
SHIM(int, -1, symlinkat, symlink_, (symlink_, d, p), (const char* t, int d, const char* p) noexcept, (t, d, p))
SHIM(ssize_t, -1, readlinkat, readlink_, (readlink_, d, p), (int d, const char* p, char* b, size_t n) noexcept, (d, p, b, n))
SHIM(ssize_t, -1, getxattr, getxattr_, (getxattr_, AT_FDCWD, p), (const char* p, const char* k, void* v, size_t n) noexcept, (p, k, v, n))
SHIM(ssize_t, -1, lgetxattr, getxattr_, (getxattr_, AT_FDCWD, p), (const char* p, const char* k, void* v, size_t n) noexcept, (p, k, v, n))
SHIM(int, -1, setxattr, setxattr_, (setxattr_, AT_FDCWD, p), (const char* p, const char* k, const void* v, size_t n, int g) noexcept, (p, k, v, n, g))
SHIM(int, -1, lsetxattr, setxattr_, (setxattr_, AT_FDCWD, p), (const char* p, const char* k, const void* v, size_t n, int g) noexcept, (p, k, v, n, g))
SHIM(ssize_t, -1, listxattr, listxattr_, (listxattr_, AT_FDCWD, p), (const char* p, char* b, size_t n) noexcept, (p, b, n))
SHIM(ssize_t, -1, llistxattr, listxattr_, (listxattr_, AT_FDCWD, p), (const char* p, char* b, size_t n) noexcept, (p, b, n))
SHIM(int, -1, removexattr, removexattr_, (removexattr_, AT_FDCWD, p), (const char* p, const char* k) noexcept, (p, k))
SHIM(int, -1, lremovexattr, removexattr_, (removexattr_, AT_FDCWD, p), (const char* p, const char* k) noexcept, (p, k))
SHIM(int, -1, chmod, chmod_, (chmod_, AT_FDCWD, p), (const char* p, mode_t m) noexcept, (p, m))
SHIM(int, -1, fchmod, chmod_, (chmod_, f), (int f, mode_t m) noexcept, (f, m))
SHIM(int, -1, fchmodat, chmod_, (chmod_, d, p), (int d, const char* p, mode_t m, int g) noexcept, (d, p, m, g))
SHIM(int, -1, fchownat, chown_, (chown_, d, p), (int d, const char* p, uid_t u, gid_t h, int g) noexcept, (d, p, u, h, g))
SHIM(int, -1, utimensat, utimens_, (utimens_, d, p), (int d, const char* p, const struct timespec t[2], int g) noexcept, (d, p, t, g))
SHIM(int, -1, futimens, utimens_, (utimens_, f), (int f, const struct timespec t[2]) noexcept, (f, t))
SHIM(int, -1, ftruncate64, truncate_, (truncate_, f), (int f, off64_t n) noexcept, (f, n))
SHIM(int, -1, truncate64, truncate_, (truncate_, AT_FDCWD, p), (const char* p, off64_t n) noexcept, (p, n))
SHIM(int, -1, fallocate64, fallocate_, (fallocate_, f), (int f, int m, off64_t o, off64_t n), (f, m, o, n))
SHIM(ssize_t, -1, copy_file_range, copyRange_, (copyRange_, t), (int f, off64_t* a, int t, off64_t* b, size_t n, unsigned g), (f, a, t, b, n, g))
SHIM(off64_t, -1, lseek64, lseek_, (lseek_, f), (int f, off64_t o, int w) noexcept, (f, o, w))
SHIM(int, -1, fstatvfs64, statvfs_, (statvfs_, f), (int f, struct statvfs64* s) noexcept, (f, s))
SHIM(int, -1, faccessat, access_, (access_, d, p), (int d, const char* p, int m, int g) noexcept, (d, p, m, g))
// clang-format on

ssize_t splice(int in, off64_t* inAt, int out, off64_t* outAt, size_t size, unsigned flags) {
  REAL(splice);
  if (failsAt(splice_, in) || failsAt(splice_, out)) return -1;
  return fn(in, inAt, out, outAt, size, flags);
}
}
