#include "store/known_content.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>

#include "store/tree/system.h"

namespace kilnfs {
namespace {

/// The order of TreeWalk: what is in a directory comes before what follows the directory.
bool before(const std::string& a, const std::string& b) {
  const auto rank = [](char c) { return c == '/' ? 0 : 1 + static_cast<unsigned char>(c); };
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                      [&](char x, char y) { return rank(x) < rank(y); });
}

}  // namespace

bool KnownContent::advance() {
  auto next = manifest_.next();
  if (!next || !*next) {
    ended_ = true;
    return false;
  }
  entry_ = std::move(**next);
  if (entry_.type == 'u') {
    if (above_.empty()) return !(ended_ = true);
    path_.resize(above_.back());
    above_.pop_back();
    return true;
  }
  const bool root = entry_.name == ".";
  at_ = root ? "" : path_.empty() ? entry_.name : path_ + "/" + entry_.name;
  if (entry_.type == 'd') {
    above_.push_back(path_.size());
    path_ = at_;
  }
  return true;
}

std::optional<std::string> KnownContent::of(const std::string& path, const struct stat& st) {
  while (!ended_ && (entry_.type == 'u' || before(at_, path))) {
    if (!advance()) return std::nullopt;
  }
  if (ended_ || at_ != path || entry_.type != 'f' || entry_.content == "?") return std::nullopt;
  const auto there = openBeneath(base_.get(), path, O_PATH | O_NOFOLLOW);
  struct stat same = {};
  if (!there || ::fstat(there->get(), &same) != 0) return std::nullopt;
  if (same.st_dev != st.st_dev || same.st_ino != st.st_ino) return std::nullopt;
  // Not if it plainly is not what was recorded any more.
  if (!entry_.content.starts_with(fmt::format("{}:", st.st_size))) return std::nullopt;
  return entry_.content;
}

}  // namespace kilnfs
