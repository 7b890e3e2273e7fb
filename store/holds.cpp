#include "store/holds.h"

namespace kilnfs {

Hold Holds::hold(const Id& id, std::string why) {
  const std::lock_guard lock(mutex_);
  if (going_.count(id) != 0) return nullptr;
  auto* const place = new Held::iterator(held_.emplace(id, std::move(why)));
  return {place, [this](const Held::iterator* held) {
            {
              const std::lock_guard releasing(mutex_);
              held_.erase(*held);
            }
            delete held;
          }};
}

std::string Holds::why(const Id& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = held_.find(id);
  return found != held_.end() ? found->second : std::string();
}

Status Holds::unlessHeld(const Id& id, const std::function<Status()>& remove) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = held_.find(id);
    if (found != held_.end()) return fail(EBUSY, found->second);
    going_.insert(id);
  }
  const Status done = remove();
  const std::lock_guard lock(mutex_);
  going_.erase(id);
  return done;
}

}  // namespace kilnfs
