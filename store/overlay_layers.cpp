#include "store/overlay_layers.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "store/base/directory_names.h"
#include "store/copy_node.h"
#include "store/overlay_base.h"
#include "store/tree/system.h"

namespace kilnfs {
namespace {

// With the one that is plain: the kernel takes at most 255 bytes of names for all layers at once.
constexpr size_t kMostSealed = 10;

Status setOverlayAttribute(int directory, const char* name, const std::string& value) {
  if (::setxattr(procPath(directory).c_str(), name, value.data(), value.size(), 0) != 0) {
    return failErrno(std::string("set ") + name);
  }
  return {};
}

class LayerMaker {
 public:
  LayerMaker(const Area& area, const std::string& name, const Snapshot& sealed)
      : from_(sealed), stubs_(sealed.over()->stubs), to_(area.fd.get(), area.path, name, "") {}

  Status make(const Snapshot& base) {
    // No descriptor is held over a directory's subdirectories: trees can be very deep.
    directories_.emplace_back();
    for (size_t i = 0; i < directories_.size(); ++i) {
      const std::string path = directories_[i];
      if (stubs_.count(path) != 0) continue;
      if (auto ok = fill(path); !ok) return ok;
    }
    if (auto ok = hideRootOf(base); !ok) return ok;
    // Making what is in a directory changes its times, and its mode may lock us out.
    for (auto path = directories_.rbegin(); path != directories_.rend(); ++path) {
      if (auto ok = finish(*path); !ok) return ok;
    }
    return {};
  }

 private:
  Status fill(const std::string& path) {
    const auto from = from_.open(path, O_RDONLY | O_DIRECTORY);
    if (!from) return Failure(from.error());
    const auto to = to_.open(path, O_RDONLY | O_DIRECTORY);
    if (!to) return Failure(to.error());
    const auto names = directoryNames(from->get());
    if (!names) return Failure(names.error());
    for (const std::string& name : *names) {
      struct stat st = {};
      if (::fstatat(from->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return failErrno("stat " + inQuotes(name));
      }
      if (S_ISDIR(st.st_mode)) {
        if (::mkdirat(to->get(), name.c_str(), 0700) != 0) return failErrno("make a directory");
        directories_.push_back(pathBelow(path, name));
      } else if (::linkat(from->get(), name.c_str(), to->get(), name.c_str(), 0) != 0) {
        return failErrno("link " + inQuotes(name));
      }
    }
    return {};
  }

  /// White-outs for what the base's root has and this one has not.
  Status hideRootOf(const Snapshot& base) {
    const auto below = base.open("", O_RDONLY | O_DIRECTORY);
    if (!below) return Failure(below.error());
    const auto names = directoryNames(below->get());
    if (!names) return Failure(names.error());
    const auto root = to_.open("", O_RDONLY | O_DIRECTORY);
    if (!root) return Failure(root.error());
    for (const std::string& name : *names) {
      if (::mknodat(root->get(), name.c_str(), S_IFCHR, 0) != 0 && errno != EEXIST) {
        return failErrno("make a white-out");
      }
    }
    return {};
  }

  Status finish(const std::string& path) {
    const auto from = from_.open(path, O_RDONLY | O_DIRECTORY);  // wherever it is
    if (!from) return Failure(from.error());
    const auto to = to_.open(path, O_RDONLY | O_DIRECTORY);
    if (!to) return Failure(to.error());
    if (auto ok = copyAttributes(from->get(), to->get()); !ok || path.empty()) return ok;
    const auto stub = stubs_.find(path);
    return stub != stubs_.end()
               ? setOverlayAttribute(to->get(), "trusted.overlay.redirect", "/" + stub->second)
               : setOverlayAttribute(to->get(), "trusted.overlay.opaque", "y");
  }

  const Snapshot& from_;
  const std::map<std::string, std::string>& stubs_;
  const TreeRoot to_;
  std::vector<std::string> directories_;  // a directory before what is in it
};

}  // namespace

OverlayLayer::~OverlayLayer() {
  if (auto gone = trash_.take(area_, name_); !gone && gone.error().code != ENOENT) {
    spdlog::warn("{}: {}", name_, gone.error().message);
  }
}

Expected<UniqueFd> OverlayLayer::open() const {
  return TreeRoot(area_.fd.get(), area_.path, name_, "").open("", O_RDONLY | O_DIRECTORY);
}

std::optional<Chain> chainOf(const std::shared_ptr<Snapshot>& top) {
  Chain chain;
  chain.bottom = top;
  while (!chain.bottom->plain()) {
    const auto& over = chain.bottom->over();
    if (!over) return std::nullopt;
    // Without own directories it is its base.
    if (over->stubs.count("") == 0) {
      if (chain.sealed.size() == kMostSealed) return std::nullopt;
      chain.sealed.push_back(chain.bottom);
    }
    chain.bottom = over->base;
  }
  return chain;
}

Expected<bool> makeLayer(const Area& area, const std::string& name, const Snapshot& sealed,
                         const Snapshot& base) {
  auto plain = sealed.over()->plainToOverlayfs ? true : ownPartPlainToOverlayfs(sealed);
  if (!plain || !*plain) return plain;
  if (::mkdirat(area.fd.get(), name.c_str(), 0700) != 0) {
    return failErrno("make " + area.path + "/" + name);
  }
  if (auto ok = LayerMaker(area, name, sealed).make(base); !ok) return Failure(ok.error());
  return true;
}

}  // namespace kilnfs
