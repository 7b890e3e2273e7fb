#include "store/overlay_mount.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

#include <chrono>
#include <system_error>
#include <thread>

#include "store/tree/system.h"

namespace kilnfs {
namespace {

/// What the kernel has to say about a mount that it refused: "e overlay: ...".
std::string messages(int context) {
  std::string out;
  char buffer[512];
  for (ssize_t n; (n = ::read(context, buffer, sizeof buffer)) > 0;) {
    out += ": ";
    out.append(buffer, static_cast<size_t>(n));
    while (out.ends_with('\n')) out.pop_back();
  }
  return out;
}

/// The overlay, attached nowhere.
Expected<UniqueFd> makeOverlay(const std::vector<UniqueFd>& lower, int upper, int work,
                               bool index) {
  const UniqueFd context(::fsopen("overlay", FSOPEN_CLOEXEC));
  if (!context.valid()) return failErrno("fsopen overlay");
  // By descriptor: no character of a path can be taken for a separator. As text, since the kernel
  // takes a descriptor for itself only since 6.13.
  std::string lowerPath;
  for (const UniqueFd& layer : lower) {
    if (!lowerPath.empty()) lowerPath += ':';
    lowerPath += procPath(layer.get());
  }
  const std::string upperPath = procPath(upper);
  const std::string workPath = procPath(work);
  const std::pair<const char*, const char*> options[] = {
      {"lowerdir", lowerPath.c_str()},
      {"upperdir", upperPath.c_str()},
      {"workdir", workPath.c_str()},
      {"redirect_dir", "on"},
      {"index", index ? "on" : "off"},
      {"metacopy", "off"},
      {"volatile", nullptr}};  // a build that a crash interrupts is thrown away: no need to sync
  for (const auto& [key, value] : options) {
    const unsigned kind = value != nullptr ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
    if (::fsconfig(context.get(), kind, key, value, 0) != 0) {
      return failErrno(std::string("overlay option ") + key);
    }
  }
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    const Failure failure = failErrno("make an overlay");
    return fail(failure.value().code, failure.value().message + messages(context.get()));
  }
  UniqueFd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
  if (!mount.valid()) return failErrno("fsmount");
  return mount;
}

/// On a thread of its own, which alone enters the new namespace.
Expected<Mounted> attach(int mount, const std::string& at) {
  if (::unshare(CLONE_NEWNS) != 0) return failErrno("make a mount namespace");
  // What is mounted elsewhere later on is to be seen there, but not the reverse.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
    return failErrno("make the mount namespace a slave");
  }
  if (::move_mount(mount, "", AT_FDCWD, at.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return failErrno("mount at " + at);
  }
  // A mount of its own for the daemon, so that the command's can be made read-only at its end,
  // which tells whether somebody still writes to it.
  Mounted out;
  out.view.reset(::open_tree(mount, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
  if (!out.view.valid()) return failErrno("open_tree");
  out.space.reset(::open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC));
  if (!out.space.valid()) return failErrno("open the mount namespace");
  return out;
}

bool reconfigureReadOnly(int mount) {
  const UniqueFd context(::fspick(mount, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC));
  return context.valid() && ::fsconfig(context.get(), FSCONFIG_SET_FLAG, "ro", nullptr, 0) == 0 &&
         ::fsconfig(context.get(), FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr, 0) == 0;
}

}  // namespace

Expected<Mounted> mountOverlay(const std::vector<UniqueFd>& lower, int upper, int work, bool index,
                               const std::string& at) {
  auto mount = makeOverlay(lower, upper, work, index);
  if (!mount) return Failure(mount.error());
  Expected<Mounted> out = fail(EIO);
  try {
    std::thread([&] { out = attach(mount->get(), at); }).join();
  } catch (const std::system_error& e) {
    return fail(EAGAIN, std::string("make a thread to mount with: ") + e.what());
  }
  return out;
}

Status makeReadOnly(int mount) {
  // What is closed when a process has gone, or by way of the mount, is so a moment later.
  constexpr std::chrono::milliseconds kLongest{250};
  std::chrono::microseconds pause{50};
  bool done = reconfigureReadOnly(mount);
  for (; !done && errno == EBUSY && pause <= kLongest; pause *= 2) {
    std::this_thread::sleep_for(pause);
    done = reconfigureReadOnly(mount);
  }
  if (done) return {};
  return failErrno("make the build's directory read-only");
}

}  // namespace kilnfs
