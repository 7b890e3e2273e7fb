// Two stores with the same base: one whose builds run at native speed, and one whose builds go
// through the mount.
#pragma once

#include <memory>
#include <string>

#include "tests/support/mounted_store.h"

namespace kilnfs::testing {

/// A bash script that makes a base: files, directories and links of every kind, all of them old.
extern const char* const kBase;

/// A daemon and its store below a directory of its own.
class BuildStore {
 public:
  BuildStore(const std::string& dir, const std::vector<std::string>& options);
  /// Ends the daemon: nothing may be left.
  ~BuildStore();
  BuildStore(const BuildStore&) = delete;
  BuildStore& operator=(const BuildStore&) = delete;

  /// kiln with these words, in the mount.
  Ran kiln(const std::string& words) const;
  /// A build by a shell script, which is given as a file so that nothing has to be quoted.
  Ran build(const std::string& id, const std::string& base, const std::string& script,
            const std::string& options = "") const;
  /// The result `id`, not built yet, can't be made plain before letGo(): a file is in its place.
  /// One that has nothing of its base can't be built then.
  void holdUp(const std::string& id) const;
  void letGo(const std::string& id) const;
  /// Waits until all is plain, though attempts may have failed before.
  void settle() const;
  std::string mnt() const { return dir_ + "/mnt"; }
  std::string store() const { return dir_ + "/store"; }
  /// Unmounts, and waits for the daemon: its exit status. Nothing more is looked at.
  int unmount();
  /// Kills the daemon: the end is not looked at any more.
  void kill();

 private:
  const std::string dir_;
  std::unique_ptr<Daemon> daemon_;
};

/// Whether builds can be had at native speed here.
bool nativeBuildsPossible();

}  // namespace kilnfs::testing
