#include "store/group_copy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/copy_node.h"

namespace kilnfs {

Expected<CopyOnWrite::Group> copyForAllNames(int from, int sideFd, std::string file,
                                             nlink_t names) {
  if (auto ok = copyNode(from, sideFd, file); !ok) return Failure(ok.error());
  struct stat st = {};
  if (::fstatat(sideFd, file.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    const Failure failure = failErrno("stat a copy");
    ::unlinkat(sideFd, file.c_str(), 0);
    return failure;
  }
  return CopyOnWrite::Group{std::move(file), backingId(st), names};
}

}  // namespace kilnfs
