// Reading extended attributes where they are to be copied or compared.
#pragma once

#include <sys/xattr.h>

#include <cerrno>
#include <string>

namespace kilnfs {

/// As getxattr. A security.capability without a value can be set, but not read: it has none.
inline ssize_t readXattr(const std::string& path, const std::string& name, char* value,
                         size_t room) {
  const ssize_t n = ::getxattr(path.c_str(), name.c_str(), value, room);
  return n < 0 && errno == EINVAL && name == "security.capability" ? 0 : n;
}

}  // namespace kilnfs
