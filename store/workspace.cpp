#include "store/workspace.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>

namespace kilnfs {
namespace {

/// Whether anybody has the file of `fd` open for writing, which a mapping does too: a lease for
/// reading is granted only if not. Who can't tell says no.
bool writtenBySomebody(int fd) {
  // Whoever opens it right now must not have us killed by a signal.
  ::fcntl(fd, F_SETSIG, SIGURG);
  if (::fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
    ::fcntl(fd, F_SETLEASE, F_UNLCK);
    return false;
  }
  return errno == EAGAIN;
}

}  // namespace

std::optional<Workspace::Change> Workspace::beginChange() {
  std::shared_lock lock(gate_);
  if (frozen_) return std::nullopt;
  changed_ = true;
  return Change(std::move(lock));
}

void Workspace::opened(bool forWriting) {
  if (forWriting) ++writers_;
  ++opens_;
}

void Workspace::closed(bool forWriting) {
  if (forWriting) --writers_;
  --opens_;
}

void Workspace::watchMapping(UniqueFd readOnly) {
  struct stat st;
  if (::fstat(readOnly.get(), &st) != 0) return;
  const std::lock_guard lock(mappedMutex_);
  std::erase_if(mapped_, [](const auto& file) { return !writtenBySomebody(file.second.get()); });
  // Who goes on writing to it is seen by each that closes it meanwhile.
  if (!knownAsMapped(backingId(st)) && writtenBySomebody(readOnly.get())) {
    mapped_.emplace_back(backingId(st), std::move(readOnly));
  }
  anyMapped_ = !mapped_.empty();
}

void Workspace::forgetUnmapped() {
  if (!anyMapped_) return;
  const std::lock_guard lock(mappedMutex_);
  // The kernel lets go of a file a little after it has told us so.
  constexpr int kTries = 20;
  for (int i = 0; i < kTries && !mapped_.empty(); ++i) {
    if (i > 0) ::poll(nullptr, 0, 1);
    std::erase_if(mapped_, [](const auto& file) { return !writtenBySomebody(file.second.get()); });
  }
  anyMapped_ = !mapped_.empty();
}

bool Workspace::mappedForWriting(const BackingId& file) const {
  if (!anyMapped_) return false;
  const std::lock_guard lock(mappedMutex_);
  return knownAsMapped(file);
}

bool Workspace::knownAsMapped(const BackingId& file) const {
  return std::any_of(mapped_.begin(), mapped_.end(),
                     [&](const auto& known) { return known.first == file; });
}

bool Workspace::freeze(bool evenWithWriters) {
  const std::unique_lock lock(gate_);
  if (!evenWithWriters) {
    forgetUnmapped();
    if (writers_ > 0 || anyMapped_) return false;
  }
  frozen_ = true;
  return true;
}

}  // namespace kilnfs
