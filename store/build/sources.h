// What a build copies in: found, looked at and hashed with the requester's rights.
#pragma once

#include <memory>
#include <string>

#include "store/base/interrupt.h"
#include "store/build/account.h"
#include "store/build/builds.h"

namespace kilnfs {

class Sources {
 public:
  /// `mount`: paths below it are not opened through it, the daemon being the one who would answer;
  /// what is below its results/ is read from the store.
  Sources(Store& store, std::string mount) : store_(store), mount_(std::move(mount)) {}

  /// The absolute path. EINVAL: relative, and the requester's directory is not known.
  static Expected<std::string> resolve(const std::string& source, const Requester& who);

  /// Whether `path` is a directory (a symbolic link to one counts) or anything else. ENOENT,
  /// EACCES; EINVAL: below the mount, but not a result. May block on slow file systems.
  Expected<bool> isDirectory(const std::string& path, const Account& account) const;

  /// The id of a request that gives none: SHA-256 over all that determines the result. Reads
  /// everything that is copied. EINTR. Blocks.
  Expected<Id> automaticId(const BuildRequest& request, const Requester& who,
                           const Account& account, Interrupt& interrupt) const;

 private:
  /// What is to be copied, not yet looked at with anybody's rights.
  struct Found {
    std::string path;
    std::shared_ptr<Snapshot> result;  // if it is of one: its root, and where below that it is
    UniqueFd root;
    std::string below;
  };
  Expected<Found> find(const std::string& path, const Account& account) const;
  /// O_PATH, with the rights that the thread has.
  static Expected<UniqueFd> open(const Found& found);
  bool belowMount(const std::string& path) const;

  Store& store_;
  const std::string mount_;
};

}  // namespace kilnfs
