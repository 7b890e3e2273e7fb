#include "store/tree/side_copy.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <utility>

#include "store/base/fault.h"
#include "store/copy_node.h"
#include "store/tree/system.h"

namespace kilnfs {

Expected<SideCopy> SideCopy::make(int from, const TreeRoot& tree, std::optional<uint64_t> keep) {
  static std::atomic<uint64_t> next{1};
  const auto [dirFd, prefix] = tree.beside();
  const std::string name = prefix + std::to_string(next++);
  if (auto ok = copyNode(from, dirFd, name, keep); !ok) return Failure(ok.error());
  faultPoint("tree.copy");
  SideCopy copy(dirFd, name, UniqueFd());
  auto fd = openBeneath(dirFd, name, O_PATH | O_NOFOLLOW);
  if (!fd) return Failure(fd.error());
  copy.fd_ = std::move(*fd);
  return copy;
}

SideCopy::SideCopy(SideCopy&& other) noexcept
    : dirFd_(other.dirFd_), name_(std::exchange(other.name_, {})), fd_(std::move(other.fd_)) {}

struct stat SideCopy::attributes() const {
  struct stat st = {};
  ::fstat(fd_.get(), &st);  // can't fail: it is open
  return st;
}

Status SideCopy::moveTo(int dirFd, const std::string& name) {
  if (::renameat(dirFd_, name_.c_str(), dirFd, name.c_str()) != 0) return fail(errno);
  name_.clear();
  return {};
}

std::string SideCopy::keep() {
  return std::exchange(name_, {});
}

void SideCopy::remove() {
  if (!name_.empty()) ::unlinkat(dirFd_, name_.c_str(), 0);
  name_.clear();
}

}  // namespace kilnfs
