#include "store/workspace.h"

namespace kilnfs {

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

bool Workspace::freeze(bool evenWithWriters) {
  const std::unique_lock lock(gate_);
  if (!evenWithWriters && writers_ > 0) return false;
  frozen_ = true;
  return true;
}

}  // namespace kilnfs
