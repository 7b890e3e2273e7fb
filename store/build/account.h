// The user that a command runs as, and acting with that user's rights for a moment.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "store/base/error.h"
#include "store/base/requester.h"
#include "store/store.h"

namespace kilnfs {

struct Account {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary
  std::string name;           // as the user database says, else the uid
  std::string home = "/";
  std::string shell = "/bin/sh";
};

/// The account that `who` asks to run as: their own, or `other`. EPERM: only root and the daemon's
/// user may name somebody else, and a daemon that is not root runs commands only as itself.
Expected<Account> accountFor(const Requester& who, const std::optional<User>& other);

/// The group of a user who gave none. EINVAL: not in the user database.
Expected<gid_t> groupOf(uid_t uid);

/// The whole environment of a command of `account`: a plain PATH, HOME, USER, LOGNAME, SHELL, LANG,
/// then `extra` ("K=V", later ones win).
std::vector<std::string> cleanEnvironment(const Account& account,
                                          const std::vector<std::string>& extra);

/// While it lives, the calling thread looks at files with the account's rights and no more. Only
/// for looking: nothing must be created meanwhile. Without effect where the daemon is not root.
class ActAs {
 public:
  explicit ActAs(const Account& account);
  ~ActAs();
  ActAs(const ActAs&) = delete;
  ActAs& operator=(const ActAs&) = delete;
  /// False: the rights could not be taken on, and nothing must be looked at.
  bool ok() const { return ok_; }

 private:
  bool active_ = false;
  bool ok_ = true;
  std::vector<gid_t> groups_;       // the thread's own
  unsigned effective_[2] = {0, 0};  // its capabilities
};

}  // namespace kilnfs
