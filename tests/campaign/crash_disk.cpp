// A disk that can lose power: a FUSE file system with one file, DIR/disk, for a loop device.
//
//   crash_disk IMAGE DIR      in the foreground
//
// What is written is in IMAGE only once it was flushed (a flush of the loop device is an fsync
// here), as with the write cache of a disk. Writing a number to DIR/power-off is the power failure:
// of what was not flushed each write is lost or kept, as that seed says; from then on every request
// fails, and IMAGE is what a machine that starts again finds.
#define FUSE_USE_VERSION 314
#include <fcntl.h>
#include <fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <vector>

namespace {

struct Write {
  off_t offset;
  std::vector<char> data;
};

struct Disk {
  int stable = -1;  // IMAGE
  int live = -1;    // with all that was written; an unnamed file
  off_t size = 0;
  bool off = false;
  std::vector<Write> unflushed;
  std::mutex mutex;
};
Disk disk;

bool put(int fd, const Write& w) {
  return ::pwrite(fd, w.data.data(), w.data.size(), w.offset) ==
         static_cast<ssize_t>(w.data.size());
}

// The disk has none but its own order: any of the writes may be there, whichever came first.
void powerOff(unsigned seed) {
  std::mt19937 random(seed);
  for (const Write& w : disk.unflushed) {
    if ((random() & 1) != 0) put(disk.stable, w);
  }
  disk.unflushed.clear();
  disk.off = true;
  ::fsync(disk.stable);
}

bool isDisk(const char* path) {
  return std::strcmp(path, "/disk") == 0;
}
bool isSwitch(const char* path) {
  return std::strcmp(path, "/power-off") == 0;
}

int doGetattr(const char* path, struct stat* st, fuse_file_info*) {
  *st = {};
  st->st_nlink = 1;
  if (std::strcmp(path, "/") == 0) {
    st->st_mode = S_IFDIR | 0755;
    return 0;
  }
  if (!isDisk(path) && !isSwitch(path)) return -ENOENT;
  st->st_mode = S_IFREG | 0600;
  st->st_size = isDisk(path) ? disk.size : 0;
  return 0;
}

int doOpen(const char*, fuse_file_info* file) {
  file->direct_io = 1;
  return 0;
}

int doRead(const char* path, char* buffer, size_t size, off_t offset, fuse_file_info*) {
  const std::lock_guard lock(disk.mutex);
  if (!isDisk(path) || disk.off) return -EIO;
  const ssize_t n = ::pread(disk.live, buffer, size, offset);
  return n < 0 ? -errno : static_cast<int>(n);
}

int doWrite(const char* path, const char* data, size_t size, off_t offset, fuse_file_info*) {
  const std::lock_guard lock(disk.mutex);
  if (disk.off) return -EIO;
  if (isSwitch(path)) {
    powerOff(static_cast<unsigned>(std::strtoul(std::string(data, size).c_str(), nullptr, 10)));
    return static_cast<int>(size);
  }
  Write w{offset, {data, data + size}};
  if (!put(disk.live, w)) return -EIO;
  disk.unflushed.push_back(std::move(w));
  return static_cast<int>(size);
}

int doFsync(const char*, int, fuse_file_info*) {
  const std::lock_guard lock(disk.mutex);
  if (disk.off) return -EIO;
  for (const Write& w : disk.unflushed) {
    if (!put(disk.stable, w)) return -EIO;
  }
  disk.unflushed.clear();
  return 0;
}

int doTruncate(const char*, off_t, fuse_file_info*) {
  return 0;
}

bool open(const std::string& image) {
  disk.stable = ::open(image.c_str(), O_RDWR | O_CLOEXEC);
  struct stat st = {};
  if (disk.stable < 0 || ::fstat(disk.stable, &st) != 0) return false;
  disk.size = st.st_size;
  const std::string live = image + ".live";
  disk.live = ::open(live.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  ::unlink(live.c_str());
  if (disk.live < 0 || ::ftruncate(disk.live, disk.size) != 0) return false;
  std::vector<char> buffer(1 << 20);
  for (off_t at = 0; at < disk.size; at += static_cast<off_t>(buffer.size())) {
    const off_t data = ::lseek(disk.stable, at, SEEK_DATA);
    if (data < 0) break;  // the rest is a hole
    at = data - data % static_cast<off_t>(buffer.size());
    const ssize_t n = ::pread(disk.stable, buffer.data(), buffer.size(), at);
    if (n <= 0 || ::pwrite(disk.live, buffer.data(), static_cast<size_t>(n), at) != n) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !open(argv[1])) {
    std::perror("crash_disk IMAGE DIR");
    return 1;
  }
  fuse_operations operations = {};
  operations.getattr = doGetattr;
  operations.open = doOpen;
  operations.read = doRead;
  operations.write = doWrite;
  operations.fsync = doFsync;
  operations.truncate = doTruncate;
  char* words[] = {argv[0], const_cast<char*>("-f"), const_cast<char*>("-s"), argv[2], nullptr};
  return ::fuse_main(4, words, &operations, nullptr);
}
