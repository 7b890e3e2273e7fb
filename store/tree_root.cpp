#include "store/tree_root.h"

#include <fcntl.h>

#include <climits>

#include "store/tree/system.h"

namespace kilnfs {

Expected<UniqueFd> TreeRoot::open(const std::string& below, int flags) const {
  if ((flags & O_CREAT) != 0) return fail(EINVAL, "TreeRoot::open does not create");
  std::string path;
  int areaFd;
  {
    const std::lock_guard lock(mutex_);
    path = below.empty() ? name_ : name_ + "/" + below;
    areaFd = areaFd_;
  }
  // A path may be longer than PATH_MAX: it is walked in pieces.
  constexpr size_t kPiece = PATH_MAX - 512;
  UniqueFd at;
  size_t begin = 0;
  while (path.size() - begin > kPiece) {
    const size_t end = path.rfind('/', begin + kPiece);
    auto next = openBeneath(at.valid() ? at.get() : areaFd, path.substr(begin, end - begin),
                            O_PATH | O_DIRECTORY);
    if (!next) return next;
    at = std::move(*next);
    begin = end + 1;
  }
  return openBeneath(at.valid() ? at.get() : areaFd, path.substr(begin), flags);
}

std::pair<int, std::string> TreeRoot::beside() const {
  const std::lock_guard lock(mutex_);
  // A name may be as long as names can be: only its number, which comes first, is taken.
  return {areaFd_, ".side." + name_.substr(0, 40) + "."};
}

std::string TreeRoot::path() const {
  const std::lock_guard lock(mutex_);
  return areaPath_ + "/" + name_;
}

void TreeRoot::moved(int areaFd, std::string areaPath, std::string name) {
  const std::lock_guard lock(mutex_);
  areaFd_ = areaFd;
  areaPath_ = std::move(areaPath);
  name_ = std::move(name);
}

}  // namespace kilnfs
