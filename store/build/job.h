// The scheduler's own records. Part of scheduler.cpp and its sisters, for nobody else.
#pragma once

#include "store/build/scheduler.h"

namespace kilnfs {

struct Scheduler::Prepared {
  BuildRequest request;  // with its id
  Requester who;
  Account account;
  bool idIsHash = false;  // of what determines the result: nobody gave it
};

// Guarded by the scheduler's mutex, but for what is const.
struct Scheduler::Job {
  explicit Job(Prepared what) : asked(std::move(what)), id(*asked.request.id), status{id} {}

  const Prepared asked;
  const Id id;
  const std::shared_ptr<Interrupt> stop = std::make_shared<Interrupt>();
  BuildStatus status;
  int waiters = 0;
  bool detached = false;  // lasts without waiters
  bool cancelled = false;
  bool retried = false;
  bool done = false;
  std::vector<Hold> held;          // until it is done: what may not be pruned meanwhile
  JobPtr base;                     // waited for
  std::vector<JobPtr> dependents;  // whose base this is
  std::shared_ptr<Workspace> tmpdir;
  std::condition_variable changed;  // done, or a waiter was interrupted
};

struct Scheduler::Later {
  std::vector<std::shared_ptr<Interrupt>> raise;

  /// Call without the scheduler's mutex.
  void act() {
    for (const auto& interrupt : raise) interrupt->raise();
    raise.clear();
  }
};

}  // namespace kilnfs
