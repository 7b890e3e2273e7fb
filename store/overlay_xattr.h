// The extended attributes in which overlayfs keeps what it needs to know of an upper directory.
#pragma once

#include <optional>
#include <string>

#include "store/base/error.h"

namespace kilnfs {

/// trusted.overlay.`name` of what is at `path` (a symbolic link is not followed), if it has that.
Expected<std::optional<std::string>> overlayAttribute(const std::string& path, const char* name);

/// Takes away what overlayfs has set on `path` for itself. An attribute of such a name that the
/// command has set is kept by overlayfs under another name: it gets its own back. Whether there
/// was none such.
Expected<bool> stripOverlay(const std::string& path);

}  // namespace kilnfs
