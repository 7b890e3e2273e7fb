#include "tools/kiln/mount.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>

namespace kilnfs {
namespace {

bool octal(char c) {
  return c >= '0' && c <= '7';
}

// The kernel writes blanks, tabs, newlines and backslashes of a path as \ooo.
std::string decoded(std::string_view field) {
  std::string out;
  for (size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size() && octal(field[i + 1]) && octal(field[i + 2]) &&
        octal(field[i + 3])) {
      out += static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 +
                               (field[i + 3] - '0'));
      i += 3;
    } else {
      out += field[i];
    }
  }
  return out;
}

std::string real(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> resolved(realpath(path.c_str(), nullptr),
                                                             &std::free);
  return resolved ? std::string(resolved.get()) : path;
}

std::string readMountinfo() {
  std::ifstream in("/proc/self/mountinfo");
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

std::vector<std::string> kilnfsMounts(std::string_view mountinfo) {
  std::vector<std::string> mounts;
  std::istringstream lines{std::string(mountinfo)};
  for (std::string line; std::getline(lines, line);) {
    // id parent major:minor root mount-point options [optional fields] - type source options
    std::istringstream fields(line);
    std::string id, parent, device, root, point, field, type;
    fields >> id >> parent >> device >> root >> point;
    while (fields >> field && field != "-") {
    }
    fields >> type;
    if (type != "fuse.kilnfs" || root != "/") continue;
    std::string path = decoded(point);
    if (std::find(mounts.begin(), mounts.end(), path) == mounts.end()) {
      mounts.push_back(std::move(path));
    }
  }
  return mounts;
}

Expected<std::string> chooseMount(const std::string& option, const std::string& variable,
                                  std::string_view mountinfo) {
  if (!option.empty()) return real(option);
  if (!variable.empty()) return real(variable);
  auto mounts = kilnfsMounts(mountinfo);
  if (mounts.empty()) {
    return fail(ENOENT, "no kilnfs is mounted here; mount a store with: kilnfs STORE MNT");
  }
  if (mounts.size() == 1) return std::move(mounts.front());
  std::string list;
  for (const auto& mount : mounts) list += (list.empty() ? "" : ", ") + inQuotes(mount);
  return fail(EEXIST, "several kilnfs are mounted (" + list +
                          "); choose one with --mount DIR or KILN_MOUNT=DIR");
}

Expected<std::string> findMount(const std::string& option) {
  const char* variable = std::getenv("KILN_MOUNT");
  auto mount = chooseMount(option, variable == nullptr ? "" : variable, readMountinfo());
  if (!mount) return mount;
  struct stat attributes {};
  if (lstat((*mount + "/control").c_str(), &attributes) == 0) return mount;
  const int code = errno;
  if (code == ENOENT || code == ENOTDIR) {
    return fail(code, inQuotes(*mount) + " is not a kilnfs mount; mount a store there with: " +
                          "kilnfs STORE MNT");
  }
  return Failure(mountError(*mount, *mount, code));
}

Error mountError(const std::string& mount, const std::string& what, int code) {
  if (code == ENOTCONN || code == ECONNABORTED || code == ESHUTDOWN) {
    return {code, "the daemon of " + inQuotes(mount) +
                      " has gone; start it again with: kilnfs STORE " + inQuotes(mount)};
  }
  return {code, inQuotes(what) + ": " + std::strerror(code)};
}

}  // namespace kilnfs
