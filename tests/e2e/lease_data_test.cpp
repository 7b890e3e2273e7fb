// What ext4 does, a lease does: data, mappings, attributes, special files, programs, locks. The
// rows are those of a list of cases that file systems get wrong.

#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <algorithm>
#include <functional>

#include "tests/support/lease_fixture.h"

namespace kilnfs::testing {
namespace {

TEST_F(Lease, Row37To39Mappings) {
  const UniqueFd fd = open("f");
  ASSERT_EQ(::ftruncate(fd.get(), 4096), 0);
  auto* map =
      static_cast<char*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  map[0] = 'M';
  EXPECT_EQ(get("f")[0], 'M');
  ASSERT_EQ(::pwrite(fd.get(), "W", 1, 1), 1);
  EXPECT_EQ(map[1], 'W');
  ::unlink("f");
  map[2] = 'U';
  EXPECT_EQ(::msync(map, 4096, MS_SYNC), 0);
  EXPECT_EQ(asUser(0,
                   [&] {
                     ::signal(SIGBUS, SIG_DFL);  // a sanitizer would catch it
                     ::ftruncate(fd.get(), 0);
                     volatile char c = map[0];
                     return c;
                   }),
            128 + SIGBUS);
  ::munmap(map, 4096);
}

TEST_F(Lease, Row38AMappingMadeBeforeTheFirstWriteSeesIt) {
  put("f", "aaaa");
  const UniqueFd fd = open("f", O_RDONLY);
  auto* map = static_cast<char*>(::mmap(nullptr, 4, PROT_READ, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  const UniqueFd writer = open("f", O_WRONLY);
  ASSERT_EQ(::write(writer.get(), "bbbb", 4), 4);
  EXPECT_EQ(map[0], 'b');
  ::munmap(map, 4);
}

TEST_F(Lease, Row41Fallocate) {
  const UniqueFd fd = open("f");
  EXPECT_EQ(code(::fallocate(fd.get(), 0, 0, 65536)), 0);
  EXPECT_EQ(stat(fd).st_size, 65536);
  EXPECT_EQ(code(::fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 65536, 65536)), 0);
  EXPECT_EQ(stat(fd).st_size, 65536);
  const std::string bytes(65536, 'x');
  ASSERT_EQ(::pwrite(fd.get(), bytes.data(), bytes.size(), 0), 65536);
  EXPECT_EQ(code(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096)), 0);
  EXPECT_EQ(code(::fallocate(fd.get(), FALLOC_FL_ZERO_RANGE, 0, 4096)), 0);
  EXPECT_EQ(get("f").substr(0, 8193), std::string(8192, '\0') + "x");
}

TEST_F(Lease, Row42HolesAndData) {
  const UniqueFd fd = open("f");
  ::ftruncate(fd.get(), 1 << 20);
  ASSERT_EQ(::pwrite(fd.get(), "d", 1, 1 << 19), 1);
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_DATA), 1 << 19);
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_HOLE), 0);
  EXPECT_EQ(code(::lseek(fd.get(), 2 << 20, SEEK_DATA)), ENXIO);
  EXPECT_LT(stat(fd).st_blocks, 100);
}

TEST_F(Lease, Row44To46OffsetsCopiesAndDirectIo) {
  const UniqueFd fd = open("f");
  ASSERT_EQ(::pwrite(fd.get(), "copy", 4, 5L << 30), 4);
  EXPECT_EQ(stat(fd).st_size, (5L << 30) + 4);
  const UniqueFd to = open("g");
  loff_t from = 5L << 30;
  EXPECT_EQ(::copy_file_range(fd.get(), &from, to.get(), nullptr, 4, 0), 4);
  EXPECT_EQ(get("g"), "copy");
  const UniqueFd direct = open("h", O_RDWR | O_CREAT | O_DIRECT);
  const UniqueFd buffered = open("h");
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

TEST_F(Lease, Row52HardLinks) {
  put("f", "x");
  const ino_t ino = stat("f").st_ino;
  ASSERT_EQ(::link("f", "g"), 0);
  EXPECT_EQ(stat("g").st_ino, ino);
  EXPECT_EQ(stat("f").st_nlink, 2u);
  put("g", "changed");
  EXPECT_EQ(get("f"), "changed");
  ASSERT_EQ(::unlink("f"), 0);
  EXPECT_EQ(stat("g").st_nlink, 1u);
  ASSERT_EQ(::rename("g", "h"), 0);
  EXPECT_EQ(stat("h").st_ino, ino);
}

TEST_F(Lease, Row55Times) {
  put("f", "x");
  const struct timespec both[2] = {{1000000005, 11}, {1000000007, 12}};
  ASSERT_EQ(::utimensat(AT_FDCWD, "f", both, 0), 0);
  const struct timespec one[2] = {{0, UTIME_OMIT}, {3, 13}};
  ASSERT_EQ(::utimensat(AT_FDCWD, "f", one, 0), 0);
  EXPECT_EQ(stat("f").st_atim.tv_nsec, 11);
  EXPECT_EQ(stat("f").st_mtim.tv_nsec, 13);
  const struct timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
  ASSERT_EQ(::utimensat(AT_FDCWD, "f", now, 0), 0);
  EXPECT_GT(stat("f").st_atim.tv_sec, 1000000005);
  ASSERT_EQ(::symlink("nowhere", "l"), 0);
  ASSERT_EQ(::utimensat(AT_FDCWD, "l", both, AT_SYMLINK_NOFOLLOW), 0);
  EXPECT_EQ(stat("l").st_mtim.tv_nsec, 12);
}

TEST_F(Lease, Row57UmaskAndDefaultAcls) {
  EXPECT_EQ(
      shell("umask 077; : > f; mkdir d; setfacl -d -m u:12345:rwx,g::rwx d; umask 027; : > d/f; "
            "stat -c %a f; getfacl -cE d/f | grep -v '^$'",
            ".")
          .output,
      "600\nuser::rw-\nuser:12345:rwx\ngroup::rwx\nmask::rw-\nother::---\n");
}

TEST_F(Lease, Row58To60OwnersOfNewFiles) {
  ::umask(022);
  ::mkdir("s", 0755);
  ASSERT_EQ(::chown("s", 0, 4321), 0);
  ASSERT_EQ(::chmod("s", 02777), 0);
  ::mkdir("t", 0755);
  ASSERT_EQ(::chmod("t", 01777), 0);
  put("t/roots", "");
  EXPECT_EQ(asUser(kOther,
                   [] {
                     open("s/f");
                     ::mkdir("s/d", 0755);
                     open("t/f");
                     return code(::unlink("t/roots"));
                   }),
            EPERM);
  EXPECT_EQ(stat("s/f").st_uid, kOther);
  EXPECT_EQ(stat("s/f").st_gid, 4321u);
  EXPECT_EQ(stat("s/d").st_mode & 07777, 02755u);
  EXPECT_EQ(stat("t/f").st_gid, kOther);
}

TEST_F(Lease, Row62SetIdBitsGoWhenOthersWrite) {
  const auto writes = [](int flags, bool truncates) {
    return [=] {
      const UniqueFd fd = open("f", flags);
      return fd.valid() &&
                     (truncates ? ::ftruncate(fd.get(), 0) == 0 : ::write(fd.get(), "y", 1) == 1)
                 ? 0
                 : 1;
    };
  };
  const std::function<int()> ways[] = {writes(O_WRONLY, false), writes(O_WRONLY, true),
                                       writes(O_WRONLY | O_TRUNC, true),
                                       [] { return code(::truncate("f", 1)); }};
  for (const auto& way : ways) {
    put("f", "x");
    ASSERT_EQ(::chmod("f", 06777), 0);
    EXPECT_EQ(asUser(kOther, way), 0);
    EXPECT_EQ(stat("f").st_mode & 07777, 0777u);
  }
  ASSERT_EQ(::chmod("f", 06755), 0);
  ASSERT_EQ(::chown("f", 1, 1), 0);
  EXPECT_EQ(stat("f").st_mode & 07777, 0755u);
}

TEST_F(Lease, Row64ExtendedAttributes) {
  put("f", "x");
  const std::string value(3000, 'v');
  ASSERT_EQ(::setxattr("f", "user.k", value.data(), value.size(), XATTR_CREATE), 0);
  EXPECT_EQ(code(::setxattr("f", "user.k", "", 0, XATTR_CREATE)), EEXIST);
  EXPECT_EQ(code(::setxattr("f", "user.n", "", 0, XATTR_REPLACE)), ENODATA);
  char small[10];
  EXPECT_EQ(::getxattr("f", "user.k", nullptr, 0), 3000);
  EXPECT_EQ(code(::getxattr("f", "user.k", small, sizeof small)), ERANGE);
  EXPECT_EQ(code(::getxattr("f", "user.n", small, sizeof small)), ENODATA);
  EXPECT_EQ(::listxattr("f", small, sizeof small), 7);
  ASSERT_EQ(::symlink("f", "l"), 0);
  EXPECT_EQ(code(::lsetxattr("l", "trusted.k", "v", 1, 0)), 0);
  EXPECT_EQ(::lgetxattr("l", "trusted.k", small, sizeof small), 1);
  ASSERT_EQ(::setxattr("f", "trusted.k", "v", 1, 0), 0);
  EXPECT_EQ(asUser(kOther, [] { return static_cast<int>(::listxattr("f", nullptr, 0)); }), 7);
}

TEST_F(Lease, Row65AclsAreEnforced) {
  put("f", "x");
  EXPECT_EQ(shell("chmod 600 f && setfacl -m u:65534:r f && chmod g+r f", ".").status, 0);
  EXPECT_EQ(asUser(kOther, [] { return open("f", O_RDONLY).valid() ? 0 : 1; }), 0);
  EXPECT_EQ(asUser(kOther, [] { return code(open("f", O_WRONLY).get()); }), EACCES);
  ASSERT_EQ(::chmod("f", 0600), 0);
  EXPECT_EQ(asUser(kOther, [] { return code(open("f", O_RDONLY).get()); }), EACCES);
}

TEST_F(Lease, Row66AnOpenFileOutlivesItsPermissions) {
  const UniqueFd fd = open("f");
  ASSERT_EQ(::chmod("f", 0), 0);
  EXPECT_EQ(::write(fd.get(), "ok", 2), 2);
  EXPECT_EQ(code(::ftruncate(fd.get(), 1)), 0);
}

TEST_F(Lease, Row68SymbolicLinks) {
  const std::string target(4000, 't');
  ASSERT_EQ(::symlink(target.c_str(), "l"), 0);
  char text[4096];
  EXPECT_EQ(::readlink("l", text, sizeof text), 4000);
  EXPECT_EQ(stat("l").st_size, 4000);
  ASSERT_EQ(::symlink("m", "m"), 0);
  EXPECT_EQ(code(open("m", O_RDONLY).get()), ELOOP);
}

TEST_F(Lease, Row69SpecialFiles) {
  ASSERT_EQ(::mkfifo("p", 0644), 0);
  EXPECT_EQ(shell("echo through > p & cat p; wait", ".").output, "through\n");
  const UniqueFd sock(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  struct sockaddr_un address = {AF_UNIX, "s"};
  ASSERT_EQ(::bind(sock.get(), reinterpret_cast<struct sockaddr*>(&address), sizeof address), 0);
  EXPECT_TRUE(S_ISSOCK(stat("s").st_mode));
  ASSERT_EQ(::mknod("c", S_IFCHR | 0666, makedev(1, 3)), 0);
  EXPECT_EQ(stat("c").st_rdev, makedev(1, 3));
  EXPECT_EQ(code(open("c", O_RDONLY).get()), EACCES);  // kept, but not acted on: nodev
  ::chmod(".", 0777);
  EXPECT_EQ(asUser(kOther, [] { return code(::mknod("n", S_IFCHR | 0666, makedev(1, 3))); }),
            EPERM);
}

TEST_F(Lease, Row70FreeSpace) {
  struct statvfs st;
  ASSERT_EQ(::statvfs(".", &st), 0);
  EXPECT_EQ(st.f_namemax, 255u);
  EXPECT_GT(st.f_files, 0u);
  EXPECT_GT(st.f_blocks, st.f_bfree);
}

TEST_F(Lease, Row71Programs) {
  EXPECT_EQ(
      shell("printf '#!/bin/sh\necho ran' > f; chmod +x f; ./f; cp /bin/true t; ./t", ".").output,
      "ran\n");
  ASSERT_EQ(shell("cp /bin/sleep s", ".").status, 0);
  int ends[2];  // the child's end is closed by the exec
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl("./s", "s", "100", nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  char none;
  EXPECT_EQ(::read(ends[0], &none, 1), 0);
  ::close(ends[0]);
  EXPECT_FALSE(open("s", O_WRONLY).valid());
  EXPECT_EQ(errno, ETXTBSY);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

TEST_F(Lease, Row72Locks) {
  const UniqueFd a = open("f");
  const UniqueFd b = open("f");
  ASSERT_EQ(::flock(a.get(), LOCK_EX), 0);
  EXPECT_EQ(code(::flock(b.get(), LOCK_EX | LOCK_NB)), EWOULDBLOCK);
  struct flock lock = {F_WRLCK, SEEK_SET, 0, 0, 0};
  ASSERT_EQ(::fcntl(a.get(), F_SETLK, &lock), 0);
  EXPECT_EQ(asUser(0, [&] { return code(::fcntl(b.get(), F_SETLK, &lock)); }), EAGAIN);
}

TEST_F(Lease, ToolsSimplyWork) {
  const Ran ran = shell(
      "git init -q r && cd r && echo a > a && git add a && "
      "git -c user.name=n -c user.email=e commit -qm m && git status --short && cd .. && "
      "tar -C r -cf t.tar . && mkdir u && tar -C u -xf t.tar && rsync -aHAX --delete r/ u/ && diff "
      "-r r u",
      ".");
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_EQ(ran.output, "");
}

}  // namespace
}  // namespace kilnfs::testing
