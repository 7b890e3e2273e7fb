// A daemon, and kiln in the PATH of shell lines.
#pragma once

#include <string>

#include "tests/support/mounted_store.h"

namespace kilnfs::testing {

class Kiln : public MountedStore {
 protected:
  void SetUp() override {
    MountedStore::SetUp();
    start({"jobs=1"});
  }
  Ran kiln(const std::string& words) const { return sh("kiln " + words); }
  /// A shell line in the scratch directory, with kiln in PATH and the mount known.
  Ran sh(const std::string& line) const {
    return shell(
        "PATH=" KILNFS_BIN ":$PATH KILN_MOUNT='" + mnt() + "'; export PATH KILN_MOUNT; " + line,
        scratch());
  }
  std::string output(const std::string& line) const { return sh(line).output; }
};

}  // namespace kilnfs::testing
