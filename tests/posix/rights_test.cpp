// Rows 64 to 72: extended attributes, rights, links, special files, programs, locks.

#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "tests/posix/posix_test.h"

namespace kilnfs::testing {

ROW_ON(Row64_ExtendedAttributes, [] {
  put("f", "x");
  ASSERT_EQ(::setxattr("f", "user.old", "v", 1, 0), 0);
  ASSERT_EQ(::symlink("f", "l"), 0);
}) {
  const std::string value(3000, 'v');
  char small[10];
  EXPECT_EQ(::getxattr("f", "user.old", small, sizeof small), 1);
  ASSERT_EQ(::setxattr("f", "user.k", value.data(), value.size(), XATTR_CREATE), 0);
  EXPECT_EQ(code(::setxattr("f", "user.k", "", 0, XATTR_CREATE)), EEXIST);
  EXPECT_EQ(code(::setxattr("f", "user.n", "", 0, XATTR_REPLACE)), ENODATA);
  EXPECT_EQ(::getxattr("f", "user.k", nullptr, 0), 3000);
  EXPECT_EQ(code(::getxattr("f", "user.k", small, sizeof small)), ERANGE);
  EXPECT_EQ(code(::getxattr("f", "user.n", small, sizeof small)), ENODATA);
  EXPECT_EQ(code(::removexattr("f", "user.n")), ENODATA);
  // How many bytes that takes is answered by an overlay with its own attributes added, and before
  // it is asked who may see which.
  char names[100];
  EXPECT_EQ(::listxattr("f", names, sizeof names), 16);
  if (onOverlay())
    instead("more bytes than needed, to listxattr without a buffer, from an overlay");
  EXPECT_EQ(::listxattr("f", nullptr, 0), onOverlay() ? 39 : 16);
  EXPECT_EQ(code(::listxattr("f", small, sizeof small)), ERANGE);
  EXPECT_EQ(code(::setxattr("f", "nonsense.x", "", 0, 0)), EOPNOTSUPP);
  EXPECT_EQ(code(::lsetxattr("l", "user.k", "v", 1, 0)), EPERM);
  EXPECT_EQ(code(::lsetxattr("l", "trusted.k", "v", 1, 0)), 0);
  EXPECT_EQ(::lgetxattr("l", "trusted.k", small, sizeof small), 1);
  ASSERT_EQ(::setxattr("f", "trusted.k", "v", 1, 0), 0);
  const int listed =
      asUser(kOther, [&] { return static_cast<int>(::listxattr("f", names, sizeof names)); });
  // btrfs itself names the trusted ones to everybody.
  EXPECT_TRUE(listed == 16 || (onNative() && listed == 26)) << listed;
  EXPECT_EQ(asUser(kOther, [] { return code(::setxattr("f", "user.k", "v", 1, 0)); }), EACCES);
  EXPECT_EQ(asUser(kOther, [] { return code(::setxattr("f", "trusted.k", "v", 1, 0)); }), EPERM);
  EXPECT_EQ(code(::removexattr("f", "user.old")), 0);
}
RESULT_ROW_ON(Row64_ExtendedAttributes, [] {
  put("f", "x");
  ASSERT_EQ(::setxattr("f", "user.old", "v", 1, 0), 0);
}) {
  char small[10];
  EXPECT_EQ(::getxattr("f", "user.old", small, sizeof small), 1);
  EXPECT_EQ(code(::getxattr("f", "user.none", small, sizeof small)), ENODATA);
  EXPECT_EQ(::listxattr("f", small, sizeof small), 9);
}

ROW_ON(Row65_AclsAreEnforced, [] {
  put("f", "x");
  EXPECT_EQ(
      shell("chmod 600 f && setfacl -m u:65534:r f && chmod g+r f && mkdir d && setfacl -d -m "
            "u:65534:rwx d && chmod 755 d",
            ".")
          .status,
      0);
}) {
  EXPECT_EQ(asUser(kOther, [] { return failure(open("f", O_RDONLY)); }), 0);
  EXPECT_EQ(asUser(kOther, [] { return failure(open("f", O_WRONLY)); }), EACCES);
  EXPECT_EQ(shell("getfacl -cnE f | tr '\\n' ' '", ".").output,
            "user::rw- user:65534:r-- group::--- mask::r-- other::---  ");
  ASSERT_EQ(::chmod("f", 0600), 0);
  EXPECT_EQ(asUser(kOther, [] { return failure(open("f", O_RDONLY)); }), EACCES);
  EXPECT_EQ(shell("setfacl -m u:65534:rw f && stat -c %a f", ".").output, "660\n");
  open("d/new", O_RDWR | O_CREAT, 0666);
  EXPECT_EQ(asUser(kOther, [] { return failure(open("d/new", O_RDWR)); }), 0);
  ::mkdir("d/sub", 0777);
  EXPECT_EQ(shell("getfacl -cnE d/sub | grep -c ^default:user:65534:rwx", ".").output, "1\n");
}

ROW_ON(Row65_AclsTakeTheSetgidBitFromWhoIsNotOfTheGroup, [] {
  put("f", "x");
  ASSERT_EQ(::chown("f", 4001, 4242), 0);
  ASSERT_EQ(::chmod("f", 02755), 0);
}) {
  EXPECT_EQ(
      shell("setpriv --reuid=4001 --regid=4001 --clear-groups setfacl -m u:1:r f", ".").status, 0);
  EXPECT_EQ(statOf("f").st_mode & 07000, 0u);
}

ROW_ON(Row66_AnOpenFileOutlivesItsPermissions, [] {
  put("f", "x");
  ::chmod("f", 0666);
}) {
  EXPECT_EQ(asUser(kOther,
                   [] {
                     const UniqueFd fd = open("f", O_RDWR);
                     asUser(0, [] { return 0; });
                     return fd.valid() ? 0 : 1;
                   }),
            0);
  const UniqueFd fd = open("f", O_RDWR);
  ASSERT_EQ(::chmod("f", 0), 0);
  EXPECT_EQ(::write(fd.get(), "ok", 2), 2);
  EXPECT_EQ(code(::ftruncate(fd.get(), 1)), 0);
  EXPECT_EQ(asUser(kOther, [&] { return ::write(fd.get(), "ok", 2) == 2 ? 0 : 1; }), 0);
  EXPECT_EQ(asUser(kOther, [&] { return code(::ftruncate(fd.get(), 1)); }), 0);
}

ROW_ON(Row67_Access, [] {
  put("f", "x");
  put("script", "x");
  ::mkdir("closed", 0700);
  put("closed/f", "x");
}) {
  ::chmod("f", 0640);
  EXPECT_EQ(code(::access("f", R_OK | W_OK)), 0);
  EXPECT_EQ(code(::access("f", X_OK)), EACCES);  // for root too, where nobody may
  const auto other = [](const char* name, int mode) {
    return asUser(kOther, [=] { return code(::access(name, mode)); });
  };
  EXPECT_EQ(other("f", F_OK), 0);
  EXPECT_EQ(other("f", R_OK), EACCES);
  EXPECT_EQ(other("closed/f", F_OK), EACCES);
  EXPECT_EQ(other("none", F_OK), ENOENT);
  EXPECT_EQ(other("f/x", F_OK), ENOTDIR);
  EXPECT_EQ(asUser(kOther, [] { return failure(open("new")); }), EACCES);
  EXPECT_EQ(asUser(kOther, [] { return code(::unlink("f")); }), EACCES);
  EXPECT_EQ(asUser(kOther, [] { return code(::chmod("f", 0777)); }), EPERM);
  EXPECT_EQ(asUser(kOther, [] { return code(::chown("f", kOther, kOther)); }), EPERM);
}

namespace {

// XFS takes no more than 1024 bytes.
void linkToLongName() {
  if (::symlink(std::string(4000, 't').c_str(), "long") == 0) return;
  ASSERT_EQ(errno, ENAMETOOLONG);
  ASSERT_EQ(::symlink(std::string(1000, 't').c_str(), "long"), 0);
}

void longNameIsRead() {
  char text[4096];
  const ssize_t n = ::readlink("long", text, sizeof text);
  EXPECT_TRUE(n == 4000 || n == 1000) << n;
  EXPECT_EQ(statOf("long").st_size, n);
}

}  // namespace

ROW_ON(Row68_SymbolicLinks, [] {
  linkToLongName();
  ASSERT_EQ(::symlink("m", "m"), 0);
  ASSERT_EQ(::symlink("/etc/passwd", "absolute"), 0);
  ASSERT_EQ(::symlink("made", "dangling"), 0);
}) {
  char text[4096];
  longNameIsRead();
  EXPECT_EQ(failure(open("m", O_RDONLY)), ELOOP);
  EXPECT_NE(failure(open("long", O_RDONLY)), 0);
  EXPECT_EQ(::readlink("absolute", text, sizeof text), 11);
  EXPECT_EQ(std::string(text, 11), "/etc/passwd");
  EXPECT_EQ(failure(open("dangling", O_RDONLY)), ENOENT);
  put("dangling", "x");
  EXPECT_EQ(get("made"), "x");
  EXPECT_EQ(code(::symlink("", "empty")), ENOENT);
  EXPECT_EQ(code(::symlink(std::string(4096, 't').c_str(), "longer")), ENAMETOOLONG);
  EXPECT_EQ(code(::symlink("x", "m")), EEXIST);
  EXPECT_EQ(code(::readlink(".", text, sizeof text)), EINVAL);
}
RESULT_ROW_ON(Row68_SymbolicLinks, [] {
  linkToLongName();
  ASSERT_EQ(::symlink("/etc/passwd", "absolute"), 0);
}) {
  char text[4096];
  longNameIsRead();
  EXPECT_EQ(::readlink("absolute", text, sizeof text), 11);
}

ROW_ON(Row69_SpecialFiles, [] {
  ASSERT_EQ(::mkfifo("p", 0644), 0);
  ASSERT_EQ(::mknod("b", S_IFBLK | 0600, makedev(7, 200)), 0);
}) {
  EXPECT_EQ(shell("echo through > p & cat p; wait", ".").output, "through\n");
  EXPECT_EQ(statOf("b").st_rdev, makedev(7, 200));
  ::chmod("b", 0640);
  EXPECT_EQ(statOf("b").st_rdev, makedev(7, 200));
  EXPECT_TRUE(S_ISBLK(statOf("b").st_mode));
  const UniqueFd sock(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  struct sockaddr_un address = {AF_UNIX, "s"};
  ASSERT_EQ(::bind(sock.get(), reinterpret_cast<struct sockaddr*>(&address), sizeof address), 0);
  EXPECT_TRUE(S_ISSOCK(statOf("s").st_mode));
  ASSERT_EQ(::listen(sock.get(), 1), 0);
  const UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(
      code(::connect(client.get(), reinterpret_cast<struct sockaddr*>(&address), sizeof address)),
      0);
  ASSERT_EQ(::mknod("c", S_IFCHR | 0666, makedev(1, 3)), 0);
  EXPECT_EQ(statOf("c").st_rdev, makedev(1, 3));
  if (!onNative()) {
    instead("EACCES to opening a device: the node is kept, but a mount is nodev by default");
    EXPECT_EQ(failure(open("c", O_RDONLY)), EACCES);
  }
  ::chmod(".", 0777);
  EXPECT_EQ(asUser(kOther, [] { return code(::mknod("n", S_IFCHR | 0666, makedev(1, 3))); }),
            EPERM);
  EXPECT_EQ(asUser(kOther, [] { return code(::mknod("n", S_IFREG | 0666, 0)); }), 0);
  EXPECT_EQ(statOf("n").st_size, 0);
}

ROW(Row70_FreeSpace) {
  struct statvfs st;
  ASSERT_EQ(::statvfs(".", &st), 0);
  EXPECT_EQ(st.f_namemax, 255u);
  EXPECT_GE(st.f_blocks, st.f_bfree);
  const NativeTree disk;
  struct statvfs right;
  ASSERT_EQ(::statvfs(disk.path().c_str(), &right), 0);
  // In a build the store may be elsewhere than our new directory.
  if (stage().empty()) {
    EXPECT_EQ(st.f_blocks, right.f_blocks);
    EXPECT_EQ(st.f_files != 0, right.f_files != 0);
  }
}

ROW_ON(Row71_Programs, [] {
  EXPECT_EQ(
      shell("printf '#!/bin/sh\\necho ran' > f; chmod +x f; cp /bin/sleep s; cp /bin/true t", ".")
          .status,
      0);
}) {
  EXPECT_EQ(shell("./f; ./t; chmod -x t; ./t 2>/dev/null || echo $?", ".").output, "ran\n126\n");
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
  EXPECT_EQ(failure(open("s", O_WRONLY)), ETXTBSY);
  EXPECT_EQ(code(::truncate("s", 0)), ETXTBSY);
  EXPECT_EQ(code(::rename("s", "s2")), 0);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  const UniqueFd writer = open("s2", O_WRONLY);
  EXPECT_EQ(asUser(0,
                   [] {
                     ::execl("./s2", "s2", "0", nullptr);
                     return errno;
                   }),
            ETXTBSY);
}

ROW_ON(Row72_Locks, [] { put("f", "x"); }) {
  const UniqueFd a = open("f", O_RDWR);
  const UniqueFd b = open("f", O_RDWR);
  ASSERT_EQ(::flock(a.get(), LOCK_EX), 0);
  EXPECT_EQ(code(::flock(b.get(), LOCK_EX | LOCK_NB)), EWOULDBLOCK);
  ASSERT_EQ(::flock(a.get(), LOCK_UN), 0);
  EXPECT_EQ(code(::flock(b.get(), LOCK_EX | LOCK_NB)), 0);
  struct flock lock = {F_WRLCK, SEEK_SET, 0, 0, 0};
  ASSERT_EQ(::fcntl(a.get(), F_SETLK, &lock), 0);
  EXPECT_EQ(asUser(0,
                   [&] {
                     struct flock wanted = {F_WRLCK, SEEK_SET, 0, 0, 0};
                     if (::fcntl(b.get(), F_GETLK, &wanted) != 0) return 1;
                     return wanted.l_pid == ::getppid() ? code(::fcntl(b.get(), F_SETLK, &lock))
                                                        : 2;
                   }),
            EAGAIN);
  struct flock open_ = {F_WRLCK, SEEK_SET, 10, 5, 0};
  lock.l_type = F_UNLCK;
  ASSERT_EQ(::fcntl(a.get(), F_SETLK, &lock), 0);
  ASSERT_EQ(::fcntl(a.get(), F_OFD_SETLK, &open_), 0);
  EXPECT_EQ(code(::fcntl(b.get(), F_OFD_SETLK, &open_)), EAGAIN);
}

ROW_ON(Row72_AWaiterForALockHoldsUpNobody, [] { put("f", "x"); }) {
  const UniqueFd a = open("f", O_RDWR);
  ASSERT_EQ(::flock(a.get(), LOCK_EX), 0);
  const pid_t waiter = ::fork();
  if (waiter == 0) ::_exit(code(::flock(open("f", O_RDWR).get(), LOCK_EX)));
  for (int i = 0; i < 100; ++i) put("g" + std::to_string(i), "x");
  ASSERT_EQ(::flock(a.get(), LOCK_UN), 0);
  int status = 1;
  ::waitpid(waiter, &status, 0);
  EXPECT_EQ(status, 0);
}

ROW_ON(Row82_CopiesAreExact, [] {
  put("f", "x");
  ASSERT_EQ(shell("ln f g; setfattr -n user.a -v b f; setfacl -m u:12345:r f; chmod 6755 f; "
                  "mkfifo p; mknod b b 7 200; truncate -s 1M sparse; touch -d '2001-02-03 "
                  "04:05:06.123456789' d f; ln -s x l; mkdir e; setfacl -d -m g:54321:rwx e; "
                  "setcap cap_net_raw+ep d; touch \"$(printf 'n\\377')\"",
                  ".")
                .status,
            0);
  ASSERT_EQ(::lchown("l", 3000000000U, 7), 0);
}) {
  ::mkdir("copy", 0755);
  const Ran ran = shell(
      "rsync -aHAXS --numeric-ids --exclude=/copy ./ copy/ && rsync "
      "-naHAXSic --delete --numeric-ids --exclude=/copy ./ copy/ && "
      "getcap copy/d && stat -c '%y %a %h' copy/f && stat -c %u copy/l",
      ".");
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_NE(ran.output.find("copy/d cap_net_raw=ep\n2001-02-03 04:05:06.123456789"),
            std::string::npos)
      << ran.output;
  EXPECT_NE(ran.output.find("3000000000"), std::string::npos) << ran.output;
}

}  // namespace kilnfs::testing
