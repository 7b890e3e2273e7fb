#include "fs/lease_names.h"

#include <endian.h>
#include <unistd.h>

#include <climits>
#include <cstdint>

namespace kilnfs {

bool LeaseNames::canBePrivate(uid_t holder, const struct stat& root) {
  // The kernel does not look for an ACL where the group has no rights.
  return root.st_uid == holder && ((root.st_mode & 077) == 0 || (root.st_mode & 070) != 0);
}

bool LeaseNames::keep(const std::string& lease, uid_t holder, const struct stat& root) {
  if (!canBePrivate(holder, root)) return false;
  const std::lock_guard lock(mutex_);
  const auto known = leases_.try_emplace(lease, Lease{holder, State::kept}).first;
  return known->second.state == State::kept;
}

std::optional<uid_t> LeaseNames::letsIn(const std::string& lease) const {
  const std::lock_guard lock(mutex_);
  const auto known = leases_.find(lease);
  if (known == leases_.end() || known->second.state == State::open) return std::nullopt;
  return known->second.holder;
}

bool LeaseNames::keepNoMore(const std::string& lease) {
  const std::lock_guard lock(mutex_);
  const auto known = leases_.find(lease);
  if (known == leases_.end()) {
    leases_[lease].state = State::open;  // nor later
    return false;
  }
  if (known->second.state != State::kept) return false;
  known->second.state = State::notKept;
  return true;
}

void LeaseNames::open(const std::string& lease) {
  const std::lock_guard lock(mutex_);
  const auto known = leases_.find(lease);
  if (known == leases_.end()) return;  // it has ended meanwhile
  known->second.state = State::open;
  opened_.notify_all();
}

void LeaseNames::awaitOpen(const std::string& lease, std::chrono::milliseconds limit) const {
  std::unique_lock lock(mutex_);
  opened_.wait_for(lock, limit, [&] {
    const auto known = leases_.find(lease);
    return known == leases_.end() || known->second.state == State::open;
  });
}

void LeaseNames::ended(const std::string& lease) {
  const std::lock_guard lock(mutex_);
  leases_.erase(lease);
  opened_.notify_all();
}

std::string LeaseNames::privateAcl() {
  // As linux/posix_acl_xattr.h lays it out.
  struct Entry {
    uint16_t tag, rights;
    uint32_t id;
  };
  constexpr uint32_t kNobody = ~uint32_t{0};
  const uint32_t version = htole32(2);
  const Entry entries[] = {{htole16(0x01), htole16(7), kNobody},   // the owner
                           {htole16(0x04), htole16(0), kNobody},   // the group
                           {htole16(0x20), htole16(0), kNobody}};  // others
  std::string acl(reinterpret_cast<const char*>(&version), sizeof version);
  return acl.append(reinterpret_cast<const char*>(entries), sizeof entries);
}

namespace {

bool leadsInto(const std::string& link, const std::string& directory) {
  char path[PATH_MAX];
  const ssize_t length = ::readlink(link.c_str(), path, sizeof path);
  if (length <= 0) return false;
  const std::string_view to(path, static_cast<size_t>(length));
  return to == directory || to.starts_with(directory + "/");
}

}  // namespace

bool standsIn(pid_t process, const std::string& directory) {
  constexpr int kLookedAt = 1024;  // descriptors, of what may have a great many
  const std::string about = "/proc/" + std::to_string(process);
  if (leadsInto(about + "/cwd", directory)) return true;
  for (int fd = 0; fd < kLookedAt; ++fd) {
    if (leadsInto(about + "/fd/" + std::to_string(fd), directory)) return true;
  }
  return false;
}

}  // namespace kilnfs
