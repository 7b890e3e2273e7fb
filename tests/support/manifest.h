// All that a directory tree is, as text: two trees are the same if their manifests are.
#pragma once

#include <map>
#include <string>

namespace kilnfs::testing {

/// Each path below `root` with its type, mode, owner, link group, attributes and content, and the
/// modification time where that is old: what was changed by a test is "new". Link groups are named
/// by the first of their paths.
std::map<std::string, std::string> manifest(const std::string& root);

/// What differs, one path a line; empty if nothing does.
std::string difference(const std::map<std::string, std::string>& a,
                       const std::map<std::string, std::string>& b);

}  // namespace kilnfs::testing
