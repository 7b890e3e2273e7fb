#include "store/build/account.h"

#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <map>

namespace kilnfs {
namespace {

/// Fills in name, home, shell and, if `withGroups`, the groups. False: not in the user database.
bool lookUp(Account& account, bool withGroups) {
  std::vector<char> buffer(16384);
  struct passwd entry = {};
  struct passwd* found = nullptr;
  account.name = std::to_string(account.uid);
  if (::getpwuid_r(account.uid, &entry, buffer.data(), buffer.size(), &found) != 0 ||
      found == nullptr) {
    return false;
  }
  account.name = found->pw_name;
  account.home = found->pw_dir;
  if (found->pw_shell[0] != '\0') account.shell = found->pw_shell;
  if (withGroups) {
    int count = 256;
    account.groups.resize(static_cast<size_t>(count));
    if (::getgrouplist(found->pw_name, account.gid, account.groups.data(), &count) < 0) {
      account.groups.resize(static_cast<size_t>(count));
      ::getgrouplist(found->pw_name, account.gid, account.groups.data(), &count);
    }
    account.groups.resize(static_cast<size_t>(count));
  }
  return true;
}

}  // namespace

Expected<Account> accountFor(const Requester& who, const std::optional<User>& other) {
  const uid_t daemon = ::geteuid();
  Account account;
  account.uid = other ? other->uid : who.uid;
  account.gid = other ? other->gid : who.gid;
  const bool own = account.uid == who.uid && account.gid == who.gid;
  if (!own && who.uid != 0 && who.uid != daemon) {
    return fail(EPERM, fmt::format("user {} may not run commands as {}:{}: only root and the user "
                                   "of the daemon may name another user",
                                   who.uid, account.uid, account.gid));
  }
  if (daemon != 0 && account.uid != daemon) {
    return fail(EPERM, fmt::format("the daemon runs as user {} and can't run commands as user {}",
                                   daemon, account.uid));
  }
  lookUp(account, !own);
  if (own) account.groups = who.groups;
  return account;
}

Expected<gid_t> groupOf(uid_t uid) {
  std::vector<char> buffer(16384);
  struct passwd entry = {};
  struct passwd* found = nullptr;
  if (::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) {
    return fail(EINVAL, fmt::format("--user {}: no such user here: give the group too, as {}:GID",
                                    uid, uid));
  }
  return found->pw_gid;
}

std::vector<std::string> cleanEnvironment(const Account& account,
                                          const std::vector<std::string>& extra) {
  std::map<std::string, std::string> env = {
      {"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
      {"HOME", account.home},
      {"USER", account.name},
      {"LOGNAME", account.name},
      {"SHELL", account.shell},
      {"LANG", "C.UTF-8"}};
  for (const std::string& pair : extra) {
    const size_t equals = pair.find('=');
    env[pair.substr(0, equals)] = equals == std::string::npos ? "" : pair.substr(equals + 1);
  }
  std::vector<std::string> out;
  for (const auto& [key, value] : env) out.push_back(fmt::format("{}={}", key, value));
  return out;
}

namespace {

// What would let a thread see or change files in spite of its user id.
constexpr unsigned kFileCapabilities =
    (1U << CAP_CHOWN) | (1U << CAP_DAC_OVERRIDE) | (1U << CAP_DAC_READ_SEARCH) |
    (1U << CAP_FOWNER) | (1U << CAP_FSETID) | (1U << CAP_LINUX_IMMUTABLE) | (1U << CAP_MKNOD);

using Capabilities = struct __user_cap_data_struct[2];

bool getCapabilities(Capabilities& data) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  return ::syscall(SYS_capget, &header, data) == 0;
}

bool setEffective(unsigned low, unsigned high) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  Capabilities data = {};
  if (!getCapabilities(data)) return false;
  data[0].effective = low;
  data[1].effective = high;
  return ::syscall(SYS_capset, &header, data) == 0;
}

}  // namespace

// The raw system calls change this thread only; the C library's functions would change them all.
ActAs::ActAs(const Account& account) : active_(::geteuid() == 0) {
  if (!active_) return;
  Capabilities own = {};
  groups_.resize(65536);
  const long count = ::syscall(SYS_getgroups, groups_.size(), groups_.data());
  ok_ = getCapabilities(own) && count >= 0;
  active_ = ok_;
  if (!ok_) return;
  groups_.resize(static_cast<size_t>(count));
  effective_[0] = own[0].effective;
  effective_[1] = own[1].effective;
  ok_ = ::syscall(SYS_setgroups, account.groups.size(), account.groups.data()) == 0;
  ::setfsgid(account.gid);
  ::setfsuid(account.uid);
  // The second call tells what the first one did.
  ok_ = ok_ && static_cast<gid_t>(::setfsgid(account.gid)) == account.gid &&
        static_cast<uid_t>(::setfsuid(account.uid)) == account.uid;
  // Explicitly, since a thread may have been told to keep its capabilities when its ids change.
  if (account.uid != 0) {
    ok_ = ok_ && setEffective(effective_[0] & ~kFileCapabilities, effective_[1]);
  }
}

ActAs::~ActAs() {
  if (!active_) return;
  ::setfsuid(::geteuid());
  ::setfsgid(::getegid());
  setEffective(effective_[0], effective_[1]);
  ::syscall(SYS_setgroups, groups_.size(), groups_.data());
}

}  // namespace kilnfs
