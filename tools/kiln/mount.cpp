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

#include "store/base/mountinfo.h"

namespace kilnfs {
namespace {

std::string real(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> resolved(realpath(path.c_str(), nullptr),
                                                             &std::free);
  return resolved ? std::string(resolved.get()) : path;
}

bool isKilnfs(const std::string& mount, const std::string& mountinfo) {
  if (mountinfo.empty()) return true;  // nothing says otherwise
  const auto mounts = kilnfsMounts(mountinfo);
  return std::find(mounts.begin(), mounts.end(), mount) != mounts.end();
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
    MountLine mount = mountLine(line);
    if (mount.type != "fuse.kilnfs" || mount.root != "/") continue;
    if (std::find(mounts.begin(), mounts.end(), mount.point) == mounts.end()) {
      mounts.push_back(std::move(mount.point));
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
  const bool there = lstat((*mount + "/control").c_str(), &attributes) == 0;
  const int code = there ? ENOTDIR : errno;
  // A file of that name may be anybody's, and must not be written to. Read only now: looking may
  // have mounted it.
  if (there && isKilnfs(*mount, readMountinfo())) return mount;
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

Error controlError(const std::string& mount, int code) {
  Error error = mountError(mount, mount + "/control", code);
  if (code == EACCES || code == EPERM) {
    error.message +=
        ": the options control_mode and control_gid of the mount say who may write there";
  } else if (code == EROFS) {
    error.message += ": the mount is read-only; mount it without the option ro";
  }
  return error;
}

}  // namespace kilnfs
