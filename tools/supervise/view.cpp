#include "tools/supervise/view.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace kilnfs::supervise {
namespace {

int setAttributes(int tree, uint64_t attributes) {
  struct mount_attr wanted = {};
  wanted.attr_set = attributes;
  return ::mount_setattr(tree, "", AT_EMPTY_PATH, &wanted, sizeof wanted);
}

bool failed(const std::string& what, std::string& error) {
  const int code = errno;
  error = std::to_string(code) + " " + what + ": " + std::strerror(code);
  return false;
}

bool enterNamespace(const Options& options) {
  if (options.namespaceFd >= 0) return ::setns(options.namespaceFd, CLONE_NEWNS) == 0;
  // What is mounted elsewhere later on is to be seen here, but not the reverse.
  return ::unshare(CLONE_NEWNS) == 0 &&
         ::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0;
}

}  // namespace

View::~View() {
  if (tree_ >= 0) ::close(tree_);
}

bool View::enter(const Options& options, std::string& error) {
  if (!enterNamespace(options)) return failed("enter a mount namespace", error);
  tree_ = ::open_tree(AT_FDCWD, options.bind.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (tree_ < 0) return failed("open " + options.bind, error);
  // As the mount that is covered.
  if (setAttributes(tree_, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV) != 0 ||
      ::move_mount(tree_, "", AT_FDCWD, options.dir.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return failed("bind " + options.bind + " to " + options.dir, error);
  }
  return true;
}

void View::close(std::string& error) {
  if (tree_ < 0) return;
  // What the kernel closes after a process has gone (io_uring's files) may take a moment.
  constexpr int kPauseMs = 10;
  constexpr int kTries = 300;
  int done = setAttributes(tree_, MOUNT_ATTR_RDONLY);
  for (int i = 0; i < kTries && done != 0 && errno == EBUSY; ++i) {
    ::poll(nullptr, 0, kPauseMs);
    done = setAttributes(tree_, MOUNT_ATTR_RDONLY);
  }
  if (done != 0 && errno == EBUSY) {
    error = std::to_string(EBUSY) +
            " the command has left a file of its directory open for writing by somebody else";
  } else if (done != 0) {
    failed("make the directory read-only", error);
  }
}

}  // namespace kilnfs::supervise
