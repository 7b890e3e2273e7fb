#include "fs/connection.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/mount.h>
#include <unistd.h>

#include "store/base/mountinfo.h"
#include "store/base/process.h"

namespace kilnfs {
namespace {

// A mount of the control files that is nobody's but ours, and goes with its last descriptor.
UniqueFd controlFiles() {
  const UniqueFd system(::fsopen("fusectl", FSOPEN_CLOEXEC));
  if (!system.valid() || ::fsconfig(system.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return {};
  }
  return UniqueFd(::fsmount(system.get(), FSMOUNT_CLOEXEC, 0));
}

UniqueFd openAborter(const std::string& device) {
  const std::string file = device.substr(device.find(':') + 1) + "/abort";
  const std::string path = "/sys/fs/fuse/connections/" + file;
  UniqueFd aborter(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (aborter.valid()) return aborter;
  const UniqueFd files = controlFiles();
  if (!files.valid()) return {};
  return UniqueFd(::openat(files.get(), file.c_str(), O_WRONLY | O_CLOEXEC));
}

bool isCut(int fd) {
  pollfd state = {fd, 0, 0};
  return ::poll(&state, 1, 0) == 1 && (state.revents & POLLERR) != 0;
}

// A pipe that nobody reads: it shows the error that an unmounted connection does.
UniqueFd brokenPipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {};
  ::close(ends[0]);
  return UniqueFd(ends[1]);
}

}  // namespace

Expected<std::unique_ptr<Connection>> Connection::of(int fd, const std::string& mountpoint) {
  std::unique_ptr<Connection> connection(new Connection(fd, mountpoint));
  connection->device_ = deviceAt(AT_FDCWD, mountpoint.c_str());
  if (connection->device_.empty()) return failErrno("look at " + mountpoint);
  connection->aborter_ = openAborter(connection->device_);
  connection->nowhere_ = brokenPipe();
  if (!connection->nowhere_.valid()) return failErrno("make a pipe");
  return connection;
}

bool Connection::isMounted() const {
  // Once it is gone its number may be another mount's.
  if (givenUp_ || (isCut(fd_) && !aborted_)) return false;
  return deviceAt(AT_FDCWD, mountpoint_.c_str()) == device_;
}

Status Connection::detach() {
  const std::lock_guard lock(unmounting_);
  if (!isMounted()) return fail(ENOENT, mountpoint_ + " is not mounted any more");
  return detachMount(mountpoint_);
}

Status Connection::abort() {
  if (aborter_.valid()) {
    aborted_ = true;
    if (::write(aborter_.get(), "1", 1) == 1) return {};
    return failErrno("abort the connection of " + mountpoint_);
  }
  if (isMounted() &&
      (::umount2(mountpoint_.c_str(), MNT_FORCE | UMOUNT_NOFOLLOW) == 0 || errno == EBUSY)) {
    aborted_ = true;
    return {};
  }
  return fail(ENOTSUP, "the connection of " + mountpoint_ + " can't be aborted");
}

void Connection::giveUp() {
  const std::lock_guard lock(unmounting_);
  const bool mounted = isMounted();
  if (givenUp_.exchange(true)) return;
  // First, so that nobody has to wait for us to write back what is mapped.
  ::dup3(nowhere_.get(), fd_, O_CLOEXEC);
  if (!mounted) return;
  if (auto done = detachMount(mountpoint_); !done) spdlog::warn("{}", done.error().message);
}

Status detachMount(const std::string& mountpoint) {
  if (::umount2(mountpoint.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return {};
  if (errno != EPERM) return failErrno("unmount " + mountpoint);
  Interrupt never;
  return runCommand({"fusermount3", "-u", "-z", "-q", "--", mountpoint}, never);
}

}  // namespace kilnfs
