// Trees of every kind for the tests of tests/posix, each on the file system that is under test.
//
// From the environment:
//   KILNFS_POSIX_DIR      where store and native directory are made (default /tmp): its file system
//                         is the one that is tested
//   KILNFS_POSIX_OPTIONS  mount options of the daemon
//   KILNFS_POSIX_STAGE    set by us alone, for a test that runs as a build's command: its first
//                         part ("prepare") or what is tested ("run")
// One daemon serves all tests of a process, and another those of an overlay; what they must leave
// behind is checked at the end.
#pragma once

#include <memory>
#include <ostream>
#include <string>

#include "tests/support/mounted_store.h"

namespace kilnfs::testing {

enum class Kind {
  native,   // a plain directory: shows that the test is right
  empty,    // a lease over an empty snapshot
  filled,   // a lease over a snapshot that holds what the test prepared
  build,    // a build's tmpdir over a result that holds what the test prepared, through the mount
  overlay,  // the same, where the build's command works in an overlay of the kernel's
  result,   // such a result itself
};
std::string nameOf(Kind kind);
inline void PrintTo(Kind kind, std::ostream* out) {
  *out << nameOf(kind);
}

/// Names the instances of tests that are made for several kinds.
struct KindName {
  std::string operator()(const ::testing::TestParamInfo<Kind>& test) const {
    return nameOf(test.param);
  }
};

/// "prepare", "run", or "" outside a build.
std::string stage();

/// What `control` answered to a command line; `ok` is whether the write succeeded.
struct Answer {
  bool ok = false;
  int code = 0;
  std::string text;
};

class Site {
 public:
  /// The one of this process, started at first use: whose builds work in the mount as everybody
  /// does, or in overlays.
  static Site& get() { return get(false); }
  static Site& get(bool overlays);
  ~Site();

  std::string mnt() const { return dir_ / "mnt"; }
  std::string mnt(const std::string& below) const { return mnt() + "/" + below; }
  std::string store() const { return dir_ / "store"; }
  std::string scratch() const { return dir_ / "scratch"; }
  Daemon& daemon() { return *daemon_; }

  Answer command(const std::string& line) const;
  /// A new name for a cache or result.
  std::string fresh(const std::string& what);
  /// Leases cache `name` for nobody in particular: the lease's name, "npm.3".
  std::string lease(const std::string& name) const;

  /// Releases it, by the command that is given. close() returns before the daemon has heard of it:
  /// until then a lease in which a file was written is busy.
  Answer release(const std::string& lease, const std::string& how = "") const;

  /// Ends the daemon, and checks what it left. The test process has then done with it.
  void finish();

 private:
  explicit Site(bool overlays);

  TempDir dir_;
  std::unique_ptr<Daemon> daemon_;
  int next_ = 1;
};

/// The directory of KILNFS_POSIX_DIR.
std::string place();

/// A new empty directory on the file system that is under test.
class NativeTree {
 public:
  NativeTree();
  const std::string& path() const { return dir_.path(); }

 private:
  TempDir dir_;
};

}  // namespace kilnfs::testing
