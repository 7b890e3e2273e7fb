#include "store/overlay_xattr.h"

#include <sys/xattr.h>

#include <climits>
#include <string_view>
#include <vector>

namespace kilnfs {
namespace {

constexpr std::string_view kPrefix = "trusted.overlay.";
constexpr std::string_view kEscaped = "trusted.overlay.overlay.";

Expected<std::string> valueOf(const std::string& path, const std::string& name) {
  std::string value(256, '\0');
  ssize_t n = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
  if (n < 0 && errno == ERANGE) {
    value.resize(XATTR_SIZE_MAX);
    n = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
  }
  if (n < 0) return failErrno("read attribute " + name);
  value.resize(static_cast<size_t>(n));
  return value;
}

}  // namespace

Expected<std::optional<std::string>> overlayAttribute(const std::string& path, const char* name) {
  auto value = valueOf(path, std::string(kPrefix) + name);
  if (value) return std::optional(std::move(*value));
  const int code = value.error().code;
  if (code == ENODATA || code == EOPNOTSUPP) return std::optional<std::string>();
  return Failure(value.error());
}

Expected<bool> stripOverlay(const std::string& path) {
  // The common case is that there is none: one call.
  char few[1024];
  ssize_t size = ::llistxattr(path.c_str(), few, sizeof few);
  std::vector<char> many;
  const char* names = few;
  if (size < 0 && errno == ERANGE) {
    many.resize(XATTR_LIST_MAX);
    names = many.data();
    size = ::llistxattr(path.c_str(), many.data(), many.size());
  }
  if (size < 0) return failErrno("list attributes");
  std::vector<std::string> escaped;
  for (ssize_t at = 0; at < size;) {
    const std::string name = names + at;
    at += static_cast<ssize_t>(name.size()) + 1;
    if (!name.starts_with(kPrefix)) continue;
    if (name.starts_with(kEscaped)) {
      escaped.push_back(name);
    } else if (::lremovexattr(path.c_str(), name.c_str()) != 0) {
      return failErrno("remove attribute " + name);
    }
  }
  for (const std::string& name : escaped) {
    auto value = valueOf(path, name);
    if (!value) return Failure(value.error());
    const std::string own = std::string(kPrefix) + name.substr(kEscaped.size());
    if (::lsetxattr(path.c_str(), own.c_str(), value->data(), value->size(), 0) != 0 ||
        ::lremovexattr(path.c_str(), name.c_str()) != 0) {
      return failErrno("set attribute " + own);
    }
  }
  return escaped.empty();
}

}  // namespace kilnfs
