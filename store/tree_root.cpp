#include "store/tree_root.h"

#include <fcntl.h>

#include <climits>

#include "store/tree/system.h"

namespace kilnfs {

Expected<UniqueFd> TreeRoot::open(const std::string& below, int flags) const {
  if ((flags & O_CREAT) != 0) return fail(EINVAL, "TreeRoot::open does not create");
  const std::shared_lock lock(mutex_);
  const std::string path = below.empty() ? name_ : name_ + "/" + below;
  // A path may be longer than PATH_MAX: it is walked in pieces.
  constexpr size_t kPiece = PATH_MAX - 512;
  UniqueFd at;
  size_t begin = 0;
  while (path.size() - begin > kPiece) {
    const size_t end = path.rfind('/', begin + kPiece);
    auto next = openBeneath(at.valid() ? at.get() : areaFd_, path.substr(begin, end - begin),
                            O_PATH | O_DIRECTORY);
    if (!next) return next;
    at = std::move(*next);
    begin = end + 1;
  }
  return openBeneath(at.valid() ? at.get() : areaFd_, path.substr(begin), flags);
}

std::pair<int, std::string> TreeRoot::beside() const {
  const std::shared_lock lock(mutex_);
  // A name may be as long as names can be: only its number, which comes first, is taken.
  return {areaFd_, ".side." + name_.substr(0, 40) + "."};
}

std::string TreeRoot::path() const {
  const std::shared_lock lock(mutex_);
  return areaPath_ + "/" + name_;
}

void TreeRoot::Moving::to(int areaFd, const std::string& areaPath, const std::string& name) {
  if (tree_ == nullptr) return;
  tree_->areaFd_ = areaFd;
  tree_->areaPath_ = areaPath;
  tree_->name_ = name;
}

}  // namespace kilnfs
