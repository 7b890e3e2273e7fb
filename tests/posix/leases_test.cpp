// Rows 32 to 36 and 73 to 79: what is peculiar to leases and results.

#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <nlohmann/json.hpp>

#include "tests/posix/posix_test.h"

namespace kilnfs::testing {
namespace {

/// A cache that holds file f with content "base", and a lease on it, made by tag.
struct Leased {
  Site& site = Site::get();
  std::string cache = site.fresh("l");
  std::string name = site.lease(cache);

  Leased() {
    put(path("f"), "base");
    again();
  }
  std::string path(const std::string& below) const {
    return site.mnt("leases/" + name + "/" + below);
  }
  nlohmann::json release(const std::string& how = "") const {
    return nlohmann::json::parse(site.command("release " + name + how).text, nullptr, false);
  }
  void again() {
    EXPECT_TRUE(site.release(name).ok);
    name = site.lease(cache);
  }
  std::string latest() const { return get(site.store() + "/cache/" + cache + "/f"); }
};

}  // namespace

LEASE_ROW_ON(Row32_TheNextCommandSeesWhatTheLastOneWrote, nullptr) {
  Site& site = Site::get();
  const std::string link = site.mnt("caches/" + site.fresh("shell"));
  // Each command line is a job of its own, as a shell with job control makes them.
  for (int i = 1; i <= 5; ++i) {
    EXPECT_EQ(shell("setsid -w sh -c 'echo x >> " + link + "/f; wc -l < " + link + "/f'").output,
              std::to_string(i) + "\n");
  }
}

LEASE_ROW_ON(Row33_WhatCameOfACommitIsTold, nullptr) {
  Leased lease;
  EXPECT_EQ(lease.release().value("outcome", ""), "unchanged");
  const std::string first = lease.site.lease(lease.cache);
  const Answer second = lease.site.command("lease " + lease.cache + " --as second");
  const std::string other = nlohmann::json::parse(second.text).value("lease", "");
  put(lease.site.mnt("leases/" + first + "/f"), "first");
  put(lease.site.mnt("leases/" + other + "/f"), "second");
  EXPECT_NE(lease.site.release(first).text.find("\"published\""), std::string::npos);
  const Answer lost = lease.site.release(other);
  EXPECT_NE(lost.text.find("\"discarded\""), std::string::npos) << lost.text;
  EXPECT_NE(lost.text.find("\"generation\""), std::string::npos) << lost.text;
  EXPECT_EQ(lease.latest(), "first");
}

LEASE_ROW_ON(Row34_AKilledProcessLeavesNothingHalf, nullptr) {
  Leased lease;
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const UniqueFd fd = open(lease.path("f"), O_RDWR);
    ::ftruncate(fd.get(), 4096);
    auto* map =
        static_cast<char*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
    map[0] = 'D';
    map[4095] = 'D';
    ::write(ends[1], "x", 1);
    for (;;) ::pause();
  }
  char byte;
  ASSERT_EQ(::read(ends[0], &byte, 1), 1);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ends[0]);
  ::close(ends[1]);
  // RELEASE comes when the kernel has written back what was mapped; until then it is busy.
  nlohmann::json done;
  do {
    done = lease.release();
  } while (done.value("errno", "") == "EBUSY");
  EXPECT_EQ(done.value("outcome", ""), "published");
  const std::string content = lease.latest();
  ASSERT_EQ(content.size(), 4096u);
  EXPECT_EQ(content[0], 'D');
  EXPECT_EQ(content[4095], 'D');
}

LEASE_ROW_ON(Row35_APublishedTreeCantBeReachedThroughTheLease, nullptr) {
  Leased lease;
  const UniqueFd reader = open(lease.path("f"), O_RDONLY);
  const UniqueFd dir = open(lease.path("."), O_RDONLY | O_DIRECTORY);
  put(lease.path("g"), "new");
  EXPECT_NE(lease.site.release(lease.name).text.find("\"published\""), std::string::npos);
  char text[8] = {};
  EXPECT_EQ(::pread(reader.get(), text, sizeof text, 0), 4);
  EXPECT_STREQ(text, "base");
  EXPECT_NE(code(::fchmod(reader.get(), 0600)), 0);
  EXPECT_NE(code(::openat(dir.get(), "h", O_RDWR | O_CREAT | O_CLOEXEC, 0644)), 0);
  EXPECT_NE(code(::unlinkat(dir.get(), "f", 0)), 0);
  EXPECT_NE(code(::openat(dir.get(), "f", O_RDWR | O_CLOEXEC)), 0);
  const UniqueFd again(
      ::open(("/proc/self/fd/" + std::to_string(reader.get())).c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_FALSE(again.valid());
  EXPECT_EQ(failure(open(lease.path("f"), O_RDONLY)), ENOENT);
  EXPECT_EQ(lease.latest(), "base");
}

LEASE_ROW_ON(Row36_BusyWhileAFileIsOpenForWriting, nullptr) {
  Leased lease;
  {
    const UniqueFd writer = open(lease.path("f"), O_RDWR);
    EXPECT_EQ(lease.release().value("errno", ""), "EBUSY");
    EXPECT_EQ(::write(writer.get(), "B", 1), 1);
  }
  nlohmann::json done;
  do {
    done = lease.release();  // close() returns before RELEASE has come
  } while (done.value("errno", "") == "EBUSY");
  EXPECT_EQ(done.value("outcome", ""), "published");
  EXPECT_EQ(lease.latest(), "Base");
}

ROW_ON(Row73_Inotify, [] { put("f", "x"); }) {
  const UniqueFd events(::inotify_init1(IN_CLOEXEC));
  ASSERT_GE(::inotify_add_watch(events.get(), ".", IN_CREATE | IN_MODIFY | IN_DELETE | IN_MOVED_TO),
            0);
  put("g", "y");
  ASSERT_EQ(::rename("g", "h"), 0);
  put("f", "changed");
  ::unlink("f");
  alignas(struct inotify_event) char buffer[4096];
  std::string seen;
  const ssize_t n = ::read(events.get(), buffer, sizeof buffer);
  for (ssize_t at = 0; at < n;) {
    const auto* event = reinterpret_cast<const struct inotify_event*>(buffer + at);
    const char* what = (event->mask & IN_CREATE) != 0   ? "+"
                       : (event->mask & IN_DELETE) != 0 ? "-"
                       : (event->mask & IN_MODIFY) != 0 ? "~"
                                                        : ">";
    const std::string one = std::string(what) + event->name;
    if (!seen.ends_with(one)) seen += one;
    at += static_cast<ssize_t>(sizeof *event + event->len);
  }
  EXPECT_EQ(seen, "+g~g>h~f-f");
}

LEASE_ROW_ON(Row74_Polling, nullptr) {
  Site& site = Site::get();
  put("f", "x");
  const UniqueFd file = open("f", O_RDONLY);
  struct pollfd one = {file.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&one, 1, 0), 1);
  const UniqueFd events = open(site.mnt("events"), O_RDONLY | O_NONBLOCK);
  char text[4096];
  while (::read(events.get(), text, sizeof text) > 0) {
  }
  one.fd = events.get();
  const std::string lease = site.lease(site.fresh("p"));
  EXPECT_EQ(::poll(&one, 1, -1), 1);
  EXPECT_GT(::read(events.get(), text, sizeof text), 0);
  EXPECT_TRUE(site.command("release " + lease).ok);
}

ROW_ON(Row75_FileHandles, [] { put("f", "x"); }) {
  alignas(struct file_handle) char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
  auto* handle = reinterpret_cast<struct file_handle*>(room);
  handle->handle_bytes = MAX_HANDLE_SZ;
  int mount = 0;
  const int got = code(::name_to_handle_at(AT_FDCWD, "f", handle, &mount, 0));
  if (onNative()) {
    EXPECT_EQ(got, 0);
    return;
  }
  if (onOverlay()) {
    instead(
        "EOPNOTSUPP: an overlay gives out handles only with nfs_export, which excludes redirects "
        "of directories");
    EXPECT_EQ(got, EOPNOTSUPP);
    return;
  }
  instead("the kernel makes handles itself; one of a node that it has forgotten is ESTALE");
  if (got != 0) {
    EXPECT_EQ(got, EOPNOTSUPP);
    return;
  }
  // The kernel makes one of any FUSE node. It opens that file while the kernel knows it, and after
  // that nothing: node numbers are never used twice, so it is never another file.
  const UniqueFd here = open(".", O_RDONLY | O_DIRECTORY);
  put("g", "other");
  ::unlink("f");
  shell("echo 2 > /proc/sys/vm/drop_caches");
  put("h", "another");
  const UniqueFd fd(::open_by_handle_at(here.get(), handle, O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(fd.valid());
  EXPECT_EQ(errno, ESTALE);
}

LEASE_ROW_ON(Row76_ForgottenInodesFreeTheirMemory, nullptr) {
  Site& site = Site::get();
  const auto descriptors = [&] {
    return entries("/proc/" + std::to_string(site.daemon().pid()) + "/fd");
  };
  const size_t before = descriptors();
  EXPECT_EQ(shell("mkdir d && cd d && seq 5000 | xargs touch && ls -l | wc -l", ".").output,
            "5001\n");
  EXPECT_LT(descriptors(), before + 1000);
}

LEASE_ROW_ON(Row77_ABlockedReadIsInterrupted, nullptr) {
  Site& site = Site::get();
  const std::string id = site.fresh("wait");
  ASSERT_TRUE(site.command("build " + id + " -c 'until test -e go; do sleep 0.05; done'").ok);
  // Ended by signals at once: the commands return, whatever they waited for goes on.
  const Ran ran =
      shell("timeout -s INT 0.3 sh -c 'echo wait " + id + " > control'; timeout -s INT " +
                "0.3 cat events >/dev/null; timeout -s INT 0.3 sh -c 'exec 3<>control; " +
                "echo follow " + id + " >&3; cat <&3'; echo over",
            site.mnt());
  EXPECT_EQ(ran.output.substr(ran.output.size() - 5), "over\n");
  EXPECT_TRUE(site.command("cancel " + id).ok);
  site.command("wait " + id);
}

RESULT_ROW_ON(Row78_ResultsCantBeChanged, [] {
  put("f", "x");
  ::mkdir("d", 0755);
  put("d/f", "x");
}) {
  if (onNative()) return;
  const UniqueFd old = open("f", O_RDONLY);
  EXPECT_EQ(failure(open("f", O_WRONLY)), EROFS);
  EXPECT_EQ(failure(open("f", O_RDONLY | O_TRUNC)), EROFS);
  EXPECT_EQ(failure(open("new")), EROFS);
  const int codes[] = {code(::truncate("f", 0)),
                       code(::chmod("f", 0600)),
                       code(::chown("f", 1, 1)),
                       code(::utimensat(AT_FDCWD, "f", nullptr, 0)),
                       code(::unlink("f")),
                       code(::rmdir("d")),
                       code(::mkdir("new", 0755)),
                       code(::symlink("x", "new")),
                       code(::mkfifo("new", 0644)),
                       code(::link("f", "new")),
                       code(::rename("f", "new")),
                       code(::rename("f", "d/f")),
                       code(::fchmod(old.get(), 0600)),
                       code(::fchown(old.get(), 1, 1)),
                       code(::futimens(old.get(), nullptr))};
  for (const int one : codes) EXPECT_EQ(one, EROFS);
  EXPECT_EQ(failure(UniqueFd(::open(("/proc/self/fd/" + std::to_string(old.get())).c_str(),
                                    O_RDWR | O_CLOEXEC))),
            EROFS);
  EXPECT_EQ(get("f"), "x");
}

RESULT_ROW_ON(Row79_DeletedWhileOpen, [] { put("f", "still"); }) {
  const std::string here = std::filesystem::current_path();
  const UniqueFd fd = open("f", O_RDONLY);
  ASSERT_EQ(::chdir("/"), 0);
  if (onNative()) {
    std::filesystem::remove_all(here);
    ASSERT_EQ(::mkdir(here.c_str(), 0755), 0);
  } else {
    ASSERT_EQ(::rmdir(here.c_str()), 0);
    EXPECT_EQ(code(::access(here.c_str(), F_OK)), ENOENT);
  }
  EXPECT_EQ(code(::access((here + "/f").c_str(), F_OK)), ENOENT);
  char text[8] = {};
  EXPECT_EQ(::read(fd.get(), text, sizeof text), 5);
  EXPECT_STREQ(text, "still");
}

}  // namespace kilnfs::testing
