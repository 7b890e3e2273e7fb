#include "store/control/executor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include "store/build/account.h"

namespace kilnfs {
namespace {

using nlohmann::json;

Outcome failed(const Error& error, json fields = json::object()) {
  return {std::move(fields), error, nullptr};
}

Outcome failed(const Error& error, const Id& id) {
  return failed(error, {{"id", id.str()}});
}

Outcome answered(json fields) {
  return {std::move(fields), std::nullopt, nullptr};
}

Outcome answered(const Status& status, const Id& id) {
  if (!status) return failed(status.error(), id);
  return answered({{"id", id.str()}});
}

/// The end of a build, as an error for who waited for it.
std::optional<Error> errorOf(const BuildStatus& status, const Store& store) {
  const auto error = [&](int code) {
    const auto log = store.logFile(status.id);
    struct stat st = {};
    const bool saysMore = log && ::stat(log->c_str(), &st) == 0 && st.st_size > 0;
    return Error{
        code, fmt::format("{} {}: {}{}", status.id.str(), stateName(status.state), status.message,
                          saysMore ? "; see logs/" + status.id.str() : "")};
  };
  switch (status.state) {
    case BuildState::failed:
      return error(EIO);
    case BuildState::cancelled:
      return error(ECANCELED);
    case BuildState::timedOut:
      return error(ETIMEDOUT);
    default:
      return std::nullopt;
  }
}

json leaseObject(const LeaseInfo& lease) {
  return {{"lease", lease.lease},
          {"path", "leases/" + lease.lease},
          {"cache", lease.cache},
          {"generation", lease.generation}};
}

}  // namespace

std::string Outcome::line() const {
  json out = fields;
  out["ok"] = !error.has_value();
  if (error) {
    out["errno"] = errnoName(error->code);
    out["message"] = error->message;
  }
  return out.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

json buildObject(const BuildStatus& status) {
  json out = {
      {"id", status.id.str()}, {"state", stateName(status.state)}, {"cached", status.cached}};
  if (status.exit) out["exit"] = *status.exit;
  if (status.signal) out["signal"] = *status.signal;
  return out;
}

Outcome Executor::execute(const Command& command, uint64_t handle, const Requester& who,
                          Interrupt& interrupt) {
  const Call call{handle, who, interrupt};
  return std::visit([&](const auto& each) { return run(each, call); }, command);
}

Outcome Executor::run(const BuildCommand& command, const Call& call) {
  BuildRequest request = command.request;
  if (command.user) {
    User user{command.user->uid, 0};
    if (command.user->gid) {
      user.gid = *command.user->gid;
    } else if (command.user->uid == call.who.uid) {
      user.gid = call.who.gid;
    } else if (auto group = groupOf(user.uid); group) {
      user.gid = *group;
    } else {
      return failed(group.error());
    }
    request.user = user;
  }
  auto status = command.wait ? builds_.run(request, call.who, call.interrupt)
                             : builds_.submit(request, call.who, call.interrupt);
  if (!status) {
    return request.id ? failed(status.error(), *request.id) : failed(status.error());
  }
  Outcome out = answered(buildObject(*status));
  if (command.wait) out.error = errorOf(*status, store_);
  return out;
}

Outcome Executor::run(const WaitCommand& command, const Call& call) {
  json builds = json::array();
  Outcome out;
  for (const Id& id : command.ids) {
    auto status = builds_.wait(id, call.interrupt);
    const std::optional<Error> error = status ? errorOf(*status, store_) : status.error();
    builds.push_back(status ? buildObject(*status) : json{{"id", id.str()}});
    if (error && !out.error) out.error = error;  // the first, but all are waited for
    if (error && error->code == EINTR) break;
  }
  if (command.ids.size() == 1) {
    out.fields = builds[0];
  } else {
    out.fields = {{"builds", builds}};
  }
  return out;
}

Outcome Executor::run(const FollowCommand& command, const Call& /*call*/) {
  auto log = FollowedLog::open(store_, builds_, command.id);
  if (!log) return failed(log.error(), command.id);
  Outcome out;
  out.follow = std::move(*log);
  return out;
}

Outcome Executor::run(const CancelCommand& command, const Call& call) {
  return answered(builds_.cancel(command.id, call.who), command.id);
}

Outcome Executor::run(const DeleteCommand& command, const Call& /*call*/) {
  if (builds_.underWay(command.id)) {
    return failed(Error{EBUSY, command.id.str() + " is being built: cancel it first"}, command.id);
  }
  return answered(store_.remove(command.id, command.recursive), command.id);
}

Outcome Executor::run(const DeleteCacheCommand& command, const Call& /*call*/) {
  leases_.settle(command.name);
  const Status done = store_.deleteCache(command.name, command.force);
  json fields = {{"cache", command.name.str()}};
  return done ? answered(std::move(fields)) : failed(done.error(), std::move(fields));
}

Outcome Executor::run(const LeaseCommand& command, const Call& call) {
  auto lease = command.tag
                   ? leases_.forTag(command.name, call.who, *command.tag, command.ttl)
                   : leases_.forHandle(command.name, call.who, call.handle, command.discard);
  if (!lease) return failed(lease.error(), {{"cache", command.name.str()}});
  return answered(leaseObject(*lease));
}

Outcome Executor::run(const ReleaseCommand& command, const Call& call) {
  auto done = leases_.release(command.lease, call.who.uid, command.discard);
  json fields = {{"lease", command.lease}};
  if (!done) return failed(done.error(), std::move(fields));
  fields["outcome"] = outcomeName(done->outcome);
  fields["generation"] = done->generation;
  if (!done->winner.empty()) fields["winner"] = done->winner;
  return answered(std::move(fields));
}

Outcome Executor::run(const ImportCommand& command, const Call& call) {
  const Status done = builds_.importTree(command.id, command.source, call.who, call.interrupt);
  Outcome out = answered(done, command.id);
  if (done) out.fields["state"] = stateName(BuildState::saved);
  return out;
}

Outcome Executor::run(const ExportCommand& command, const Call& call) {
  return answered(builds_.exportTree(command.id, command.destination, call.who, call.interrupt),
                  command.id);
}

Outcome Executor::run(const PinCommand& command, const Call& /*call*/) {
  return answered(store_.setPinned(command.id, command.pin), command.id);
}

Outcome Executor::run(const PruneCommand& command, const Call& call) {
  auto pruned = store_.prune({command.limits, command.dryRun}, call.interrupt);
  if (!pruned) return failed(pruned.error());
  json results = json::array();
  uint64_t bytes = 0;
  for (const Pruned& each : *pruned) {
    json object = {{"id", each.id}, {"action", actionName(each.action)}, {"why", each.why}};
    if (each.bytes != 0) object["bytes"] = each.bytes;
    if (each.action != Pruned::Action::kept) bytes += each.bytes;
    results.push_back(std::move(object));
  }
  json fields = {{"results", std::move(results)}};
  if (bytes != 0) fields["bytes"] = bytes;
  return answered(std::move(fields));
}

Outcome Executor::run(const VerifyCommand& command, const Call& call) {
  auto verified = store_.verify(command.ids, command.repair, call.interrupt);
  if (!verified) return failed(verified.error());
  json results = json::array();
  size_t bad = 0;
  size_t unread = 0;
  for (const Verified& each : *verified) {
    json object = {{"id", each.id}, {"action", actionName(each.action)}, {"why", each.why}};
    if (each.repaired) object["repaired"] = true;
    results.push_back(std::move(object));
    unread += each.action == Verified::Action::unreadable ? 1 : 0;
    const bool wrong =
        each.action == Verified::Action::differs || each.action == Verified::Action::missing;
    bad += wrong && !each.repaired ? 1 : 0;
  }
  json fields = {{"results", std::move(results)}};
  if (bad + unread == 0) return answered(std::move(fields));
  std::vector<std::string> wrong;
  if (bad != 0) {
    wrong.push_back(fmt::format("{} of {} results are not what was saved{}", bad, verified->size(),
                                command.repair ? "" : "; see verify --repair"));
  }
  if (unread != 0) {
    wrong.push_back(fmt::format("{} of {} results can't be read now, and are left as they are",
                                unread, verified->size()));
  }
  return failed(Error{EIO, fmt::format("{}", fmt::join(wrong, "; "))}, std::move(fields));
}

Outcome Executor::run(const CompleteDeletesCommand& /*command*/, const Call& call) {
  Status done = store_.completeDeletes();
  if (done) done = store_.completeRecords(call.interrupt);
  return done ? answered(json::object()) : failed(done.error());
}

Outcome Executor::run(const StatusCommand& /*command*/, const Call& /*call*/) {
  auto status = statusObject(store_, leases_, builds_);
  return status ? answered(std::move(*status)) : failed(status.error());
}

Outcome Executor::run(const HelpCommand& /*command*/, const Call& /*call*/) {
  return answered({{"help", controlHelp()}});
}

}  // namespace kilnfs
