// Rows 21 to 31: files that are open while their name is removed or replaced, and how they are
// opened.

#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <cstring>
#include <vector>

#include "tests/posix/posix_test.h"

namespace kilnfs::testing {

namespace {

// An overlay's file that is open for reading is the one below; the first change makes a copy, which
// needs a name.
constexpr const char* kStillBelow =
    "1 link, and EEXIST to changes, for a file that was open for reading alone when its "
    "last name went: an overlay has it below still";

}  // namespace

ROW_ON(Row21_AnUnlinkedFileGoesOn, [] { put("f", "hello"); }) {
  const UniqueFd fd = open("f", O_RDWR);
  const UniqueFd reader = open("f", O_RDONLY);
  ::unlink("f");
  EXPECT_EQ(statOf(fd).st_nlink, 0u);
  EXPECT_EQ(statOf(fd).st_size, 5);
  EXPECT_EQ(::pwrite(fd.get(), "J", 1, 0), 1);
  char text[8] = {};
  EXPECT_EQ(::pread(reader.get(), text, sizeof text, 0), 5);
  EXPECT_STREQ(text, "Jello");
  EXPECT_EQ(code(::ftruncate(fd.get(), 2)), 0);
  EXPECT_EQ(code(::fchmod(fd.get(), 0600)), 0);
  EXPECT_EQ(code(::fchown(fd.get(), 1, 2)), 0);
  const struct timespec times[2] = {{1, 2}, {3, 4}};
  EXPECT_EQ(code(::futimens(fd.get(), times)), 0);
  EXPECT_EQ(code(::fsetxattr(fd.get(), "user.a", "b", 1, 0)), 0);
  EXPECT_EQ(::fgetxattr(fd.get(), "user.a", text, sizeof text), 1);
  const struct stat st = statOf(fd);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  EXPECT_EQ(st.st_uid, 1u);
  EXPECT_EQ(st.st_mtim.tv_nsec, 4);
  EXPECT_EQ(st.st_size, 2);
  EXPECT_EQ(statOf(reader).st_size, 2);
}

ROW_ON(Row21_AFileThatWasOnlyReadIsWrittenAfterUnlink, [] { put("f", "old"); }) {
  const UniqueFd reader = open("f", O_RDONLY);
  const UniqueFd path = open("f", O_PATH);
  ::unlink("f");
  const std::string again = "/proc/self/fd/" + std::to_string(reader.get());
  char text[8] = {};
  if (onOverlay()) {
    instead(kStillBelow);
    EXPECT_EQ(statOf(path).st_nlink, 1u);
    EXPECT_EQ(code(::fchmod(reader.get(), 0640)), EEXIST);
    EXPECT_EQ(failure(open(again, O_WRONLY)), EEXIST);
    EXPECT_EQ(::read(reader.get(), text, sizeof text), 3);
    EXPECT_STREQ(text, "old");
    return;
  }
  EXPECT_EQ(statOf(path).st_nlink, 0u);
  EXPECT_EQ(code(::fchmod(reader.get(), 0640)), 0);
  const UniqueFd writer = open(again, O_WRONLY);
  ASSERT_TRUE(writer.valid());
  EXPECT_EQ(::write(writer.get(), "N", 1), 1);
  EXPECT_EQ(::read(reader.get(), text, sizeof text), 3);
  EXPECT_STREQ(text, "Nld");
  EXPECT_EQ(statOf(reader).st_mode & 07777, 0640u);
}

ROW_ON(Row22_RenameOverAnOpenFile, [] {
  put("f", "old");
  put("g", "new");
}) {
  const UniqueFd fd = open("f", O_RDONLY);
  const pid_t watcher = ::fork();
  if (watcher == 0) {
    for (;;) {
      if (::access("f", F_OK) != 0) ::_exit(1);
    }
  }
  ASSERT_EQ(::rename("g", "f"), 0);
  for (int i = 0; i < 200; ++i) {
    put("g", "new");
    ASSERT_EQ(::rename("g", "f"), 0);
  }
  ::kill(watcher, SIGKILL);
  int status = 0;
  ::waitpid(watcher, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)) << "a reader found no file";
  char text[8] = {};
  EXPECT_EQ(::read(fd.get(), text, sizeof text), 3);
  EXPECT_STREQ(text, "old");
  if (onOverlay()) instead(kStillBelow);
  EXPECT_EQ(statOf(fd).st_nlink, onOverlay() ? 1u : 0u);
  EXPECT_EQ(get("f"), "new");
}

ROW_ON(Row23_TruncationIsSeenByOthers, [] { put("f", std::string(9000, 'x')); }) {
  const UniqueFd reader = open("f", O_RDONLY);
  const UniqueFd a = open("f", O_RDWR);
  const UniqueFd b = open("f", O_RDWR);
  ::ftruncate(a.get(), 3);
  EXPECT_EQ(statOf(b).st_size, 3);
  EXPECT_EQ(statOf(reader).st_size, 3);
  ::ftruncate(a.get(), 6);
  EXPECT_EQ(get("f"), std::string("xxx\0\0\0", 6));
  ASSERT_EQ(::truncate("f", 1), 0);
  char text[8] = {};
  EXPECT_EQ(::pread(reader.get(), text, sizeof text, 0), 1);
}

ROW_ON(Row24_Appenders, [] { put("log", ""); }) {
  std::vector<pid_t> children;
  for (const char c : {'a', 'b', 'c', 'd'}) {
    const pid_t child = ::fork();
    if (child == 0) {
      const UniqueFd fd = open("log", O_WRONLY | O_APPEND | O_CREAT);
      const std::string line = std::string(60, c) + "\n";
      for (int i = 0; i < 300; ++i) {
        if (::write(fd.get(), line.data(), line.size()) != 61) ::_exit(1);
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(shell("sort log | uniq -c | awk '{print $1, length($2)}'", ".").output,
            "300 60\n300 60\n300 60\n300 60\n");
}

ROW(Row24_AppendingThroughAMappingAndWithoutTheFlag) {
  const UniqueFd fd = open("f", O_RDWR | O_CREAT | O_APPEND);
  const std::string page(8192, 'q');
  ASSERT_EQ(::write(fd.get(), page.data(), page.size()), 8192);
  auto* map =
      static_cast<char*>(::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  map[0] = 'M';
  EXPECT_EQ(::msync(map, 8192, MS_SYNC), 0);
  ::munmap(map, 8192);
  EXPECT_EQ(statOf(fd).st_size, 8192);
  ::fcntl(fd.get(), F_SETFL, 0);
  EXPECT_EQ(::pwrite(fd.get(), "z", 1, 1), 1);
  EXPECT_EQ(statOf(fd).st_size, 8192);
  EXPECT_EQ(get("f").substr(0, 3), "Mzq");
}

ROW_ON(Row25_ShellRedirections, [] { put("f", "1\n"); }) {
  EXPECT_EQ(
      shell("echo 2 >> f; cat f; (echo 3; sh -c 'echo 4 >> f'; echo 5) >> f; cat f", ".").output,
      "1\n2\n1\n2\n3\n4\n5\n");
}

ROW(Row26_ExclusiveCreationHasOneWinner) {
  EXPECT_EQ(
      shell("for i in 1 2 3 4 5 6 7 8; do (set -C; : > f) 2>/dev/null && echo won & done; wait",
            ".")
          .output,
      "won\n");
  EXPECT_EQ(failure(open("f", O_RDWR | O_CREAT | O_EXCL)), EEXIST);
  ::symlink("nowhere", "l");
  EXPECT_EQ(failure(open("l", O_RDWR | O_CREAT | O_EXCL)), EEXIST);
}

ROW_ON(Row27_FilesWithoutAName, [] {
  ::mkdir("d", 0755);
  ASSERT_EQ(::chmod("d", 0777), 0);
  put("d/old", "x");
}) {
  const UniqueFd fd = open("d", O_TMPFILE | O_RDWR, 0600);
  if (onFuse() && !fd.valid()) {
    instead("EOPNOTSUPP: libfuse 3.14 has no request for it; programs fall back");
    EXPECT_EQ(errno, EOPNOTSUPP);
    return;
  }
  ASSERT_TRUE(fd.valid()) << errno;
  const auto pathOf = [](const UniqueFd& file) {
    return "/proc/self/fd/" + std::to_string(file.get());
  };
  const auto link = [&](const UniqueFd& file, const char* name) {
    return code(::linkat(AT_FDCWD, pathOf(file).c_str(), AT_FDCWD, name, AT_SYMLINK_FOLLOW));
  };
  EXPECT_EQ(statOf(fd).st_nlink, 0u);
  EXPECT_EQ(statOf(fd).st_mode & 07777, 0600u);
  const struct stat before = statOf("d");
  EXPECT_EQ(::write(fd.get(), "tmp", 3), 3);
  EXPECT_EQ(statOf(fd).st_size, 3);
  EXPECT_TRUE(statOf("d").st_mtim == before.st_mtim) << "no name was made";
  const UniqueFd again = open(pathOf(fd), O_RDONLY);
  char text[4] = {};
  EXPECT_EQ(::read(again.get(), text, sizeof text), 3);
  EXPECT_STREQ(text, "tmp");
  EXPECT_EQ(link(fd, "d/old"), EEXIST);
  ASSERT_EQ(link(fd, "d/f"), 0);
  EXPECT_EQ(get("d/f"), "tmp");
  EXPECT_EQ(statOf("d/f").st_ino, statOf(fd).st_ino);
  EXPECT_EQ(statOf(fd).st_nlink, 1u);
  EXPECT_EQ(link(fd, "g"), 0);
  EXPECT_EQ(statOf(fd).st_nlink, 2u);
  EXPECT_EQ(::write(fd.get(), "!", 1), 1);
  EXPECT_EQ(get("g"), "tmp!");

  const UniqueFd never = open("d", O_TMPFILE | O_EXCL | O_WRONLY, 0600);
  ASSERT_TRUE(never.valid());
  EXPECT_EQ(link(never, "never"), ENOENT);
  EXPECT_EQ(failure(open("d", O_TMPFILE | O_RDONLY)), EINVAL);
  EXPECT_EQ(failure(open("d/f", O_TMPFILE | O_RDWR)), ENOTDIR);
  EXPECT_EQ(asUser(kOther,
                   [] {
                     ::umask(027);
                     const UniqueFd mine = open("d", O_TMPFILE | O_RDWR, 0666);
                     const struct stat st = statOf(mine);
                     return st.st_uid == kOther && (st.st_mode & 07777) == 0640 ? 0 : 1;
                   }),
            0);
  ::chmod("d", 0755);
  EXPECT_EQ(asUser(kOther, [] { return failure(open("d", O_TMPFILE | O_RDWR)); }), EACCES);
}

ROW_ON(Row28_LinksOfOpenFiles, [] { put("f", "x"); }) {
  const UniqueFd fd = open("f", O_RDONLY);
  const std::string name = "/proc/self/fd/" + std::to_string(fd.get());
  EXPECT_EQ(code(::linkat(AT_FDCWD, name.c_str(), AT_FDCWD, "g", AT_SYMLINK_FOLLOW)), 0);
  EXPECT_EQ(get("g"), "x");
  EXPECT_EQ(statOf(fd).st_nlink, 2u);
  ::unlink("f");
  ::unlink("g");
  EXPECT_EQ(code(::linkat(AT_FDCWD, name.c_str(), AT_FDCWD, "h", AT_SYMLINK_FOLLOW)), ENOENT);
}

ROW_ON(Row29_NoAtime, [] {
  put("mine", "x");
  put("theirs", "x");
  ASSERT_EQ(::chown("theirs", kOther, kOther), 0);
}) {
  EXPECT_TRUE(open("mine", O_RDONLY | O_NOATIME).valid());
  EXPECT_TRUE(open("theirs", O_RDONLY | O_NOATIME).valid());
  EXPECT_EQ(asUser(kOther, [] { return failure(open("theirs", O_RDONLY | O_NOATIME)); }), 0);
  EXPECT_EQ(asUser(kOther, [] { return failure(open("mine", O_RDONLY | O_NOATIME)); }), EPERM);
}

ROW_ON(Row30_WaysToOpen, [] {
  put("f", "x");
  ::mkdir("d", 0755);
  ::symlink("f", "l");
  ::symlink("d", "m");
}) {
  EXPECT_EQ(failure(open("f/", O_RDONLY)), ENOTDIR);
  EXPECT_EQ(failure(open("f", O_RDONLY | O_DIRECTORY)), ENOTDIR);
  EXPECT_EQ(failure(open("l", O_RDONLY | O_NOFOLLOW)), ELOOP);
  EXPECT_EQ(failure(open("d", O_RDWR)), EISDIR);
  EXPECT_EQ(failure(open("d", O_RDONLY | O_CREAT)), EISDIR);
  EXPECT_EQ(failure(open("m", O_RDONLY | O_DIRECTORY | O_NOFOLLOW)), ENOTDIR);
  EXPECT_EQ(failure(open("none/", O_RDWR | O_CREAT)), EISDIR);
  const UniqueFd path = open("l", O_PATH | O_NOFOLLOW);
  EXPECT_TRUE(S_ISLNK(statOf(path).st_mode));
  EXPECT_EQ(code(::read(path.get(), nullptr, 0)), EBADF);
  EXPECT_EQ(code(::mkdir("n/", 0755)), 0);
  EXPECT_EQ(code(::rmdir("n/")), 0);
  EXPECT_EQ(code(::unlink("f/")), ENOTDIR);
}

ROW_ON(Row31_DescriptorsThatAreShared, [] { put("f", "0123456789"); }) {
  const UniqueFd fd = open("f", O_RDWR);
  const UniqueFd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  char text[4] = {};
  EXPECT_EQ(::read(fd.get(), text, 3), 3);
  EXPECT_EQ(asUser(0, [&] { return static_cast<int>(::read(fd.get(), text, 2)); }), 2);
  EXPECT_EQ(::lseek(copy.get(), 0, SEEK_CUR), 5);
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  char byte = 'x';
  struct iovec iov = {&byte, 1};
  struct msghdr message = {};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int sent = fd.get();
  std::memcpy(CMSG_DATA(header), &sent, sizeof sent);
  ASSERT_EQ(::sendmsg(ends[0], &message, 0), 1);
  ASSERT_EQ(::recvmsg(ends[1], &message, MSG_CMSG_CLOEXEC), 1);
  int received = -1;
  std::memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof received);
  EXPECT_EQ(::read(received, text, 1), 1);
  EXPECT_EQ(text[0], '5');
  ::close(received);
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace kilnfs::testing
