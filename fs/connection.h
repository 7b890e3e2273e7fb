// The kernel's end of a mount: to take the mount away, and to cut off who waits for an answer.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "store/base/error.h"
#include "store/base/fd.h"

namespace kilnfs {

/// Thread-safe.
class Connection {
 public:
  /// Of what was just mounted at `mountpoint` and is not served yet: nothing is asked of it. `fd`
  /// is its descriptor of /dev/fuse, which stays the caller's.
  static Expected<std::unique_ptr<Connection>> of(int fd, const std::string& mountpoint);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// The device number of what is mounted, as "0:47".
  const std::string& device() const { return device_; }
  /// What aborts the connection when something is written to it, also once it is not mounted any
  /// more; -1: the kernel's control files are not to be had, which takes privileges or fusectl
  /// mounted.
  int aborter() const { return aborter_.get(); }

  /// detachMount(). ENOENT: it is not there any more; if another one is, nothing happens to that.
  Status detach();
  /// Gives an error to all who wait, and to all who ask from now on. Works while threads of ours
  /// wait for the kernel in a call about it. ENOTSUP: not possible here.
  Status abort();
  /// Takes the mount away for good: who waits gets an error, once no thread is in a call about it,
  /// and what is written to the descriptor from now on goes nowhere. To libfuse it looks unmounted,
  /// so that it leaves alone what is there now.
  void giveUp();

 private:
  Connection(int fd, std::string mountpoint) : fd_(fd), mountpoint_(std::move(mountpoint)) {}
  bool isMounted() const;

  const int fd_;
  const std::string mountpoint_;
  std::string device_;
  UniqueFd aborter_;
  UniqueFd nowhere_;       // had from the beginning: it may not be to be had in the end
  std::mutex unmounting_;  // not for abort(), which may be what an unmount waits for
  std::atomic<bool> aborted_{false};
  std::atomic<bool> givenUp_{false};
};

/// Takes a mount away, though it may be in use.
Status detachMount(const std::string& mountpoint);

}  // namespace kilnfs
