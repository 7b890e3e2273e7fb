// One attempt at a build: what is done in its tmpdir, and what the log says if it fails.
#pragma once

#include <functional>
#include <optional>

#include "store/build/sources.h"
#include "store/build/supervised.h"

namespace kilnfs {

class Attempt {
 public:
  struct Context {
    Store& store;
    Leases& leases;
    const Sources& sources;
    const Builds::Options& options;
    Supervisors& supervisors;
    std::function<Status()> makeRoom;  // before anything is written; ENOSPC
    bool idIsHash;                     // of the request, with what it copied when it was asked
  };
  /// What is referred to outlives the attempt. `show` makes the tmpdir reachable as builds/<id>
  /// (null: no longer).
  Attempt(Context context, const Id& id, const BuildRequest& request, const Requester& who,
          const Account& account, Interrupt& stop,
          std::function<void(std::shared_ptr<Workspace>)> show);

  /// Makes the log, empty. To be called first.
  Status begin();

  /// Builds and saves, unless somebody else did meanwhile. Blocks until it has ended and nothing is
  /// left running. ECANCELED: stopped; ETIMEDOUT; EIO: the command failed; EAGAIN: it would not be
  /// what its id says; other errors: the store's. When it fails the log ends with a line that says
  /// why.
  Status run();

  /// How the command ended, if it came to that.
  const std::optional<Supervised::End>& end() const { return end_; }

 private:
  struct Link {
    std::string path, target;
  };
  Status inTmpdir(const std::shared_ptr<Workspace>& tmpdir);
  Status copySource(const BuildRequest::Copy& copy);
  Status checkSources() const;
  Status takeCaches();
  Status runCommand();
  void releaseCaches(bool discard);
  void explain(const std::string& reason);
  Status lostWrites() const;
  Supervised::Spec spec() const;
  Requester owner() const;

  Context context_;
  const Id& id_;
  const BuildRequest& request_;
  const Requester& who_;
  const Account& account_;
  Interrupt& stop_;
  const std::function<void(std::shared_ptr<Workspace>)> show_;
  std::optional<Supervised::Clock::time_point> deadline_;
  UniqueFd log_;
  std::string dir_;  // where the command runs
  std::shared_ptr<Workspace> tmpdir_;
  std::vector<std::string> leases_;  // taken
  std::vector<Link> links_;
  std::optional<Supervised::End> end_;
};

}  // namespace kilnfs
