// What the kernel reads and writes without the daemon, where libfuse and the kernel can; and what
// must hold all the same, with and without.

#include <signal.h>
#include <sys/mman.h>

#include "tests/support/lease_fixture.h"

namespace kilnfs::testing {
namespace {

class Passthrough : public Lease {
 protected:
  void SetUp() override {
    Lease::SetUp();
#ifndef KILNFS_FUSE_PASSES_THROUGH
    GTEST_SKIP() << "declared: libfuse before 3.17 can't pass files through";
#endif
    put("other", "");  // the kernel learns with the first close that nobody wants to know of them
  }
  /// Runs `body` in a child while the daemon stands still: it fails if that needs the daemon.
  int withoutDaemon(const std::function<int()>& body) {
    ::kill(daemon_->pid(), SIGSTOP);
    const int status = asUser(0, [&] {
      ::alarm(5);
      return body();
    });
    ::kill(daemon_->pid(), SIGCONT);
    return status;
  }
};

TEST_F(Passthrough, ALeasesOwnFilesNeedNoDaemonWhileTheyAreOpen) {
  const UniqueFd made = open("f");
  ASSERT_EQ(::pwrite(made.get(), "first", 1, 0), 1);  // it looks for capabilities once
  EXPECT_EQ(withoutDaemon([&] { return ::pwrite(made.get(), "made", 4, 0) == 4 ? 0 : 1; }), 0);
  EXPECT_EQ(stat("f").st_size, 4) << "seen at once";
  EXPECT_EQ(get("f"), "made");
  const UniqueFd again = open("f", O_RDONLY);
  EXPECT_EQ(withoutDaemon([&] {
              char text[5] = {};
              return ::pread(again.get(), text, 4, 0) == 4 && std::string(text) == "made" ? 0 : 1;
            }),
            0);
}

TEST_F(Passthrough, ResultsNeedNoDaemonWhileTheyAreOpenAndAreNotWrittenTo) {
  ASSERT_EQ(
      shell("echo \"build r --wait -c 'echo text | tee f > big; truncate -s 1M big'\" > control",
            mnt())
          .status,
      0);
  for (const std::string name : {"f", "big"}) {
    const std::string file = store() + "/result/r/" + name;
    ASSERT_EQ(shell("touch -a -d @1 " + file).status, 0);
    const UniqueFd fd = open(mnt("results/r/" + name), O_RDONLY);
    EXPECT_EQ(withoutDaemon([&] {
                char text[6] = {};
                return ::pread(fd.get(), text, 5, 0) == 5 && std::string(text) == "text\n" ? 0 : 1;
              }),
              0)
        << name;
    EXPECT_EQ(shell("stat -c %X " + file).output, "1\n") << name;
  }
}

TEST_F(Passthrough, WhoAppendsMayStopAppending) {
  put("f", std::string(64 << 10, 'a'));
  const UniqueFd passed = open("f");
  const UniqueFd appending = open("f", O_RDWR | O_APPEND);
  const auto size = [&] { return stat("f").st_size; };
  ASSERT_EQ(::pwrite(appending.get(), "1", 1, 0), 1);
  EXPECT_EQ(size(), (64 << 10) + 1);
  ASSERT_EQ(::fcntl(appending.get(), F_SETFL, 0), 0);
  ASSERT_EQ(::pwrite(appending.get(), "2", 1, 0), 1);
  EXPECT_EQ(size(), (64 << 10) + 1);
  EXPECT_EQ(get("f").substr(0, 2), "2a");
  ASSERT_EQ(::fcntl(passed.get(), F_SETFL, O_APPEND), 0);
  ASSERT_EQ(::pwrite(passed.get(), "3", 1, 0), 1);
  EXPECT_EQ(get("f").substr(64 << 10), "13");
}

class Mapped : public Lease {
 protected:
  char* map(const std::string& name) {
    const UniqueFd fd = open(name);
    EXPECT_EQ(::ftruncate(fd.get(), 4096), 0);
    void* at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    EXPECT_NE(at, MAP_FAILED);
    return static_cast<char*>(at);
  }
};

TEST_F(Mapped, AFileThatIsClosedButMappedForWritingIsOpenForWriting) {
  char* at = map("f");
  const std::string lease = mnt("leases/" + std::filesystem::current_path().filename().string());
  EXPECT_EQ(code(::rmdir(lease.c_str())), EBUSY) << "what is published must not change";
  at[0] = 'x';
  EXPECT_EQ(get("f")[0], 'x');
  ::munmap(at, 4096);
  EXPECT_EQ(code(::rmdir(lease.c_str())), 0);
  EXPECT_EQ(readFile(store() + "/cache/c/f")[0], 'x');
}

// Whoever reads it may stay when the one who has mapped it closes it.
TEST_F(Mapped, AMappingIsSeenBesideAReaderWhoStays) {
  const std::string lease = mnt("leases/" + std::filesystem::current_path().filename().string());
  put("before", std::string(64 << 10, 'a'));
  const UniqueFd before = open("before", O_RDONLY);
  char* first = map("before");
  EXPECT_EQ(code(::rmdir(lease.c_str())), EBUSY) << "opened for reading before";
  ::munmap(first, 4096);
  char* second = nullptr;
  UniqueFd between;
  {
    const UniqueFd fd = open("between");
    ASSERT_EQ(::ftruncate(fd.get(), 4096), 0);
    second =
        static_cast<char*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
    ASSERT_NE(second, MAP_FAILED);
    between = open("between", O_RDONLY);
  }
  EXPECT_EQ(code(::rmdir(lease.c_str())), EBUSY) << "opened for reading since";
  second[0] = 'x';
  ::munmap(second, 4096);
  std::filesystem::current_path(former_);
  EXPECT_EQ(code(::rmdir(lease.c_str())), 0) << "who reads holds up nobody";
  EXPECT_EQ(readFile(store() + "/cache/c/between")[0], 'x');
}

// Whatever is opened while a mapping is there shares its pages.
TEST_F(Mapped, WhoAppendsMeanwhileSeesWhatTheMappingWrites) {
  char* first = map("f");
  const UniqueFd appending = open("f", O_RDWR | O_APPEND);
  const auto at = [&](const UniqueFd& fd, off_t offset) {
    char byte = 0;
    return ::pread(fd.get(), &byte, 1, offset) == 1 ? byte : '-';
  };
  EXPECT_EQ(at(appending, 0), '\0');
  first[0] = 'x';
  EXPECT_EQ(at(appending, 0), 'x');
  ASSERT_EQ(::write(appending.get(), "end", 3), 3);
  EXPECT_EQ(at(open("f", O_RDONLY), 4096), 'e');
  char* second = static_cast<char*>(
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, appending.get(), 0));
  ASSERT_NE(static_cast<void*>(second), MAP_FAILED);
  second[1] = 'y';
  first[2] = 'z';
  EXPECT_EQ(std::string(first, 3), "xyz");
  ASSERT_EQ(::msync(second, 4096, MS_SYNC), 0);
  EXPECT_EQ(get("f").substr(0, 3), "xyz");
  ::munmap(first, 4096);
  ::munmap(second, 4096);
}

TEST_F(Mapped, TimesMoveWithWhatIsWrittenThroughTheMapping) {
  char* at = map("f");
  const struct timespec old[2] = {{1, 0}, {1, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, "f", old, 0), 0);
  EXPECT_EQ(stat("f").st_mtim.tv_sec, 1);
  at[0] = 'x';
  ASSERT_EQ(::msync(at, 4096, MS_SYNC), 0);
  EXPECT_GT(stat("f").st_mtim.tv_sec, 1);
  ::munmap(at, 4096);
}

}  // namespace
}  // namespace kilnfs::testing
