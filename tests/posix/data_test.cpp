// Rows 37 to 49: data.

#include <linux/fs.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <limits>

#include "tests/posix/posix_test.h"

namespace kilnfs::testing {
namespace {

char* mapOf(const UniqueFd& fd, size_t length, int protection = PROT_READ | PROT_WRITE) {
  void* map = ::mmap(nullptr, length, protection, MAP_SHARED, fd.get(), 0);
  EXPECT_NE(map, MAP_FAILED) << errno;
  return static_cast<char*>(map);
}

}  // namespace

ROW_ON(Row37_Mappings, [] { put("f", std::string(4096, '-')); }) {
  const UniqueFd fd = open("f", O_RDWR);
  char* map = mapOf(fd, 4096);
  map[0] = 'M';
  EXPECT_EQ(get("f")[0], 'M');
  EXPECT_EQ(asUser(0, [] { return get("f")[0] == 'M' ? 0 : 1; }), 0);
  ASSERT_EQ(::pwrite(fd.get(), "W", 1, 1), 1);
  EXPECT_EQ(map[1], 'W');
  map[3] = 'C';
  EXPECT_EQ(::msync(map, 4096, MS_SYNC), 0);
  ::unlink("f");
  map[2] = 'U';
  EXPECT_EQ(::msync(map, 4096, MS_SYNC), 0);
  char text[5] = {};
  EXPECT_EQ(::pread(fd.get(), text, 4, 0), 4);
  EXPECT_STREQ(text, "MWUC");
  ::munmap(map, 4096);
}

ROW_ON(Row37_AMappingOutlivesItsDescriptor, [] { put("f", std::string(4096, '-')); }) {
  UniqueFd fd = open("f", O_RDWR);
  char* map = mapOf(fd, 4096);
  fd.reset();
  map[0] = 'M';
  ::munmap(map, 4096);
  EXPECT_EQ(get("f")[0], 'M');
}

ROW_ON(Row38_AMappingMadeBeforeTheFirstWriteSeesIt, [] { put("f", "aaaa"); }) {
  const UniqueFd fd = open("f", O_RDONLY);
  char* map = mapOf(fd, 4, PROT_READ);
  EXPECT_EQ(map[0], 'a');
  const UniqueFd writer = open("f", O_WRONLY);
  ASSERT_EQ(::write(writer.get(), "bbbb", 4), 4);
  if (onOverlay()) instead("the old content: an overlay's mapping is of the file below");
  EXPECT_EQ(map[0], onOverlay() ? 'a' : 'b');
  char text[5] = {};
  EXPECT_EQ(::pread(fd.get(), text, 4, 0), 4);
  EXPECT_STREQ(text, "bbbb");
  ::munmap(map, 4);
}

ROW_ON(Row39_BeyondTheEndOfAMapping, [] { put("f", std::string(8192, 'x')); }) {
  const UniqueFd fd = open("f", O_RDWR);
  EXPECT_EQ(asUser(0,
                   [&] {
                     ::signal(SIGBUS, SIG_DFL);  // a sanitizer would catch it
                     char* map = mapOf(fd, 8192);
                     ::ftruncate(fd.get(), 0);
                     volatile char c = map[0];
                     return c;
                   }),
            128 + SIGBUS);
}

ROW_ON(Row40_TwoLinksMapped, [] {
  put("f", "aaaa");
  ASSERT_EQ(::link("f", "g"), 0);
}) {
  const UniqueFd one = open("f", O_RDWR);
  const UniqueFd two = open("g", O_RDWR);
  char* first = mapOf(one, 4);
  char* second = mapOf(two, 4);
  first[0] = 'b';
  EXPECT_EQ(second[0], 'b');
  ::munmap(first, 4);
  ::munmap(second, 4);
  EXPECT_EQ(get("g"), "baaa");
}

ROW_ON(Row41_Fallocate, [] { put("f", std::string(65536, 'x')); }) {
  const UniqueFd fd = open("f", O_RDWR);
  EXPECT_EQ(code(::fallocate(fd.get(), 0, 0, 131072)), 0);
  EXPECT_EQ(statOf(fd).st_size, 131072);
  EXPECT_EQ(code(::fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 131072, 65536)), 0);
  EXPECT_EQ(statOf(fd).st_size, 131072);
  EXPECT_EQ(code(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096)), 0);
  EXPECT_EQ(get("f").substr(0, 8193), std::string(4096, 'x') + std::string(4096, '\0') + "x");
  // tmpfs and btrfs have not all of them; what the disk says is what a lease says.
  const int zero = code(::fallocate(fd.get(), FALLOC_FL_ZERO_RANGE, 0, 4096));
  EXPECT_TRUE(zero == 0 || zero == EOPNOTSUPP) << zero;
  EXPECT_EQ(get("f")[0], zero == 0 ? '\0' : 'x');
  EXPECT_EQ(code(::fallocate(fd.get(), 0, -1, 1)), EINVAL);
  EXPECT_EQ(code(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE, 0, 1)), EOPNOTSUPP);
  if (onFuse()) {
    instead("EOPNOTSUPP to COLLAPSE and INSERT: the kernel's FUSE passes on no other mode");
    EXPECT_EQ(code(::fallocate(fd.get(), FALLOC_FL_COLLAPSE_RANGE, 0, 4096)), EOPNOTSUPP);
    EXPECT_EQ(code(::fallocate(fd.get(), FALLOC_FL_INSERT_RANGE, 0, 4096)), EOPNOTSUPP);
  }
}

namespace {

void sparse() {
  const UniqueFd fd = open("f");
  ::ftruncate(fd.get(), 1 << 20);
  ASSERT_EQ(::pwrite(fd.get(), "d", 1, 1 << 19), 1);
}

void holesAreFound(const UniqueFd& fd) {
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_DATA), 1 << 19);
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_HOLE), 0);
  EXPECT_GT(::lseek(fd.get(), 1 << 19, SEEK_HOLE), 1 << 19);
  EXPECT_EQ(code(::lseek(fd.get(), 2 << 20, SEEK_DATA)), ENXIO);
  EXPECT_EQ(code(::lseek(fd.get(), 1 << 20, SEEK_HOLE)), ENXIO);
}

/// Whether it has its holes still. An overlay that can't clone copies what follows data, up to the
/// next MiB, as data.
bool keepsHoles(const UniqueFd& fd) {
  const blkcnt_t blocks = statOf(fd).st_blocks;
  if (!onOverlay() || blocks < 200) {
    EXPECT_LT(blocks, 200);
    return true;
  }
  EXPECT_LT(blocks, 1200);
  instead("a hole after data is filled by the first change: an overlay copies in larger pieces");
  return false;
}

}  // namespace

ROW_ON(Row42_HolesAndData, sparse) {
  for (const int how : {O_RDONLY, O_RDWR}) {
    const UniqueFd fd = open("f", how);
    holesAreFound(fd);
    keepsHoles(fd);
  }
}
RESULT_ROW_ON(Row42_HolesAndData, sparse) {
  const UniqueFd fd = open("f", O_RDONLY);
  holesAreFound(fd);
  keepsHoles(fd);
}

ROW_ON(Row43_WhatIsSparseStaysSparse, sparse) {
  const UniqueFd fd = open("f", O_RDWR);
  ASSERT_EQ(::pwrite(fd.get(), "e", 1, 0), 1);
  // What is not sparse itself is copied so by who looks for zeros.
  const std::string detection = keepsHoles(fd) ? "seek" : "raw";
  EXPECT_EQ(shell("cp --sparse=" + std::string(detection == "raw" ? "always" : "auto") +
                      " f g && rsync -aS f h && tar --hole-detection=" + detection +
                      " -cSf t f && stat -c %s t | awk '{print $1 < 200000}' && cmp f g && cmp f h",
                  ".")
                .output,
            "1\n");
  EXPECT_LT(statOf("g").st_blocks, 200);
  EXPECT_LT(statOf("h").st_blocks, 200);
}

ROW_ON(Row44_OffsetsBeyond32Bits, [] {
  const UniqueFd fd = open("f");
  ASSERT_EQ(::pwrite(fd.get(), "copy", 4, 5L << 30), 4);
}) {
  EXPECT_EQ(statOf("f").st_size, (5L << 30) + 4);
  const UniqueFd fd = open("f", O_RDWR);
  char text[5] = {};
  ASSERT_EQ(::pread(fd.get(), text, 4, 5L << 30), 4);
  EXPECT_STREQ(text, "copy");
  ASSERT_EQ(::pwrite(fd.get(), "C", 1, 5L << 30), 1);
  ASSERT_EQ(::pread(fd.get(), text, 4, 5L << 30), 4);
  EXPECT_STREQ(text, "Copy");
  const std::string large(5 << 20, 'L');
  EXPECT_EQ(::pwrite(fd.get(), large.data(), large.size(), 6L << 30), 5 << 20);
  EXPECT_EQ(code(::ftruncate(fd.get(), 1)), 0);
}

ROW_ON(Row45_CopiesByTheKernel, [] { put("f", std::string(100000, 'c') + "end"); }) {
  const UniqueFd fd = open("f", O_RDONLY);
  const UniqueFd to = open("g");
  loff_t from = 100000;
  EXPECT_EQ(::copy_file_range(fd.get(), &from, to.get(), nullptr, 10, 0), 3);
  EXPECT_EQ(get("g"), "end");
  const UniqueFd same = open("f", O_RDWR);
  from = 100000;
  loff_t at = 0;
  EXPECT_EQ(::copy_file_range(same.get(), &from, same.get(), &at, 3, 0), 3);
  EXPECT_EQ(get("f").substr(0, 4), "endc");
  at = 1;
  from = 0;
  EXPECT_EQ(code(::copy_file_range(same.get(), &from, same.get(), &at, 100, 0)), EINVAL);
  EXPECT_EQ(shell("cp --reflink=auto f h && cmp f h", ".").status, 0);
  const int cloned = code(::ioctl(to.get(), FICLONE, fd.get()));
  int flags = 0;
  const int got = code(::ioctl(fd.get(), FS_IOC_GETFLAGS, &flags));
  if (!onFuse()) {
    EXPECT_TRUE(cloned == EOPNOTSUPP || cloned == 0) << cloned;
  } else {
    instead("EOPNOTSUPP to FICLONE: FUSE has no request for it; copy_file_range does it below");
    EXPECT_EQ(cloned, EOPNOTSUPP);
    EXPECT_EQ(got, ENOTTY);
  }
}

ROW_ON(Row46_DirectIo, [] { put("f", std::string(8192, 'x')); }) {
  const UniqueFd direct = open("f", O_RDWR | O_DIRECT);
  if (!direct.valid()) {
    EXPECT_EQ(errno, EINVAL);  // a tmpfs of before Linux 6.6
    return;
  }
  const UniqueFd buffered = open("f", O_RDWR);
  alignas(4096) static char page[4096];
  std::fill(std::begin(page), std::end(page), 'D');
  ASSERT_EQ(::pwrite(direct.get(), page, 4096, 0), 4096);
  char text[2] = {};
  EXPECT_EQ(::pread(buffered.get(), text, 1, 0), 1);
  EXPECT_STREQ(text, "D");
  ASSERT_EQ(::pwrite(buffered.get(), "B", 1, 0), 1);
  ASSERT_EQ(::pread(direct.get(), page, 4096, 0), 4096);
  EXPECT_EQ(page[0], 'B');
}

ROW_ON(Row47_LimitsOfSize, [] { put("f", "x"); }) {
  const auto limited = [](const std::function<int()>& body) {
    return asUser(0, [&] {
      ::signal(SIGXFSZ, SIG_IGN);
      const struct rlimit limit = {10, 10};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      return body();
    });
  };
  EXPECT_EQ(limited([] {
              const UniqueFd fd = open("f", O_RDWR);
              return static_cast<int>(::pwrite(fd.get(), "0123456789", 10, 5));
            }),
            5);
  EXPECT_EQ(limited([] {
              const UniqueFd fd = open("f", O_RDWR);
              return code(::pwrite(fd.get(), "x", 1, 10));
            }),
            EFBIG);
  EXPECT_EQ(limited([] { return code(::truncate("f", 11)); }), EFBIG);
  EXPECT_EQ(statOf("f").st_size, 10);
  const UniqueFd fd = open("f", O_RDWR);
  EXPECT_EQ(code(::ftruncate(fd.get(), -1)), EINVAL);
  EXPECT_EQ(code(::truncate("f", -1)), EINVAL);
  EXPECT_EQ(code(::pwrite(fd.get(), "x", 1, -1)), EINVAL);
}

ROW_ON(Row47_ALargerFileThanTheDiskTakes, [] { put("f", "x"); }) {
  const off_t most = std::numeric_limits<off_t>::max();
  const NativeTree disk;
  put(disk.path() + "/f", "x");
  const int right = code(::truncate((disk.path() + "/f").c_str(), most));
  EXPECT_EQ(code(::truncate("f", most)), right);
  if (right != 0) {
    EXPECT_EQ(statOf("f").st_size, 1);
  }
}

ROW_ON(Row48_Syncing, [] {
  put("f", "x");
  ::mkdir("d", 0755);
}) {
  const UniqueFd file = open("f", O_RDWR);
  const UniqueFd reader = open("f", O_RDONLY);
  const UniqueFd dir = open("d", O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::write(file.get(), "y", 1), 1);
  for (const int fd : {file.get(), reader.get(), dir.get()}) {
    EXPECT_EQ(code(::fsync(fd)), 0);
    EXPECT_EQ(code(::fdatasync(fd)), 0);
    EXPECT_EQ(code(::syncfs(fd)), 0);
  }
}

ROW_ON(Row49_TimesSetAfterWritingStay, [] { put("f", "x"); }) {
  const struct timespec times[2] = {{1, 2}, {3, 4}};
  UniqueFd fd = open("f", O_RDWR);
  char* map = mapOf(fd, 1);
  ASSERT_EQ(::write(fd.get(), "y", 1), 1);
  ASSERT_EQ(::futimens(fd.get(), times), 0);
  fd.reset();
  EXPECT_EQ(statOf("f").st_mtim.tv_sec, 3);
  ::munmap(map, 1);
  EXPECT_EQ(statOf("f").st_mtim.tv_nsec, 4);
}

}  // namespace kilnfs::testing
