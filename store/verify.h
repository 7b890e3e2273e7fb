// What comparing a result with what was recorded of it comes to. See Store::verify.
#pragma once

#include <string>

namespace kilnfs {

struct Verified {
  enum class Action {
    ok,
    differs,
    recorded,    // there was nothing to compare with; now there is
    missing,     // the database has it, the disk does not
    unreadable,  // it is stored, but can't be looked at now
    pending,     // its files are not all in place yet
  };
  std::string id;
  Action action = Action::ok;
  std::string why;        // for people
  bool repaired = false;  // set aside, or its row dropped
};
std::string actionName(Verified::Action action);

}  // namespace kilnfs
