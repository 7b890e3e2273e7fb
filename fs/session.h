// A mounted kilnfs: from mounting to unmounting. No FUSE type shows outside of fs/.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "store/base/error.h"
#include "store/build/builds.h"
#include "store/control/control.h"
#include "store/leases.h"
#include "store/store.h"

namespace kilnfs {

/// The store's parts, which outlive the session.
struct Parts {
  Store* store = nullptr;
  Leases* leases = nullptr;
  Builds* builds = nullptr;
  Control* control = nullptr;
};

struct MountOptions {
  std::string mountpoint;                // absolute
  std::string source;                    // shown as the mounted device: the store's path
  std::vector<std::string> fuseOptions;  // passed on, as "allow_other"
  bool debug = false;                    // each request on stderr
  uid_t uid = 0;                         // owner of control and of the directories
  gid_t gid = 0;
  mode_t controlMode = 0600;
  gid_t controlGid = 0;
  std::string guard;      // the program kiln-supervise (guard.h)
  size_t workers = 2000;  // threads for what may block, at most, and as many for what waits
};

class Session {
 public:
  /// Mounts. EIO: libfuse has said on stderr why it could not.
  static Expected<std::unique_ptr<Session>> create(Parts parts, const MountOptions& options);
  /// Unmounts if still mounted, ends what waits, and closes what is open.
  virtual ~Session() = default;

  /// Serves requests on threads of its own until the mount is gone or stop() was called; then
  /// nothing is mounted and nothing open. `ready` is called once the kernel and we agree.
  virtual Status serve(std::function<void()> ready) = 0;

  /// Ends serve(), from any other thread: the mount is taken away at once; who has something open
  /// gets up to `grace` milliseconds to close it.
  virtual void stop(int grace) = 0;
};

}  // namespace kilnfs
