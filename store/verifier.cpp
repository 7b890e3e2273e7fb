#include "store/verifier.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <set>

#include "store/core.h"
#include "store/manifest_compare.h"
#include "store/results.h"

namespace kilnfs {

using Action = Verified::Action;

std::string actionName(Verified::Action action) {
  switch (action) {
    case Action::ok:
      return "ok";
    case Action::differs:
      return "differs";
    case Action::recorded:
      return "recorded";
    case Action::missing:
      return "missing";
    case Action::unreadable:
      return "unreadable";
    case Action::pending:
      break;
  }
  return "pending";
}

Expected<std::vector<Id>> Verifier::all() const {
  std::set<Id> ids;
  auto rows = core_.database->builds();
  if (!rows) return Failure(rows.error());
  for (const BuildRow& row : *rows) {
    if (auto id = Id::parse(row.id)) ids.insert(std::move(*id));
  }
  auto names = listNames(core_.layout.result());
  if (!names) return Failure(names.error());
  for (const std::string& name : *names) {
    auto id = Id::parse(name);
    if (id && results_.has(*id)) ids.insert(std::move(*id));
  }
  return std::vector<Id>(ids.begin(), ids.end());
}

Expected<std::vector<Verified>> Verifier::run(const std::vector<Id>& asked) {
  std::vector<Id> ids = asked;
  if (asked.empty()) {
    auto every = all();
    if (!every) return Failure(every.error());
    ids = std::move(*every);
  }
  for (const Id& id : asked) {
    auto row = core_.database->build(id.str());
    if (!row) return Failure(row.error());
    if (!*row && !results_.has(id)) return fail(ENOENT, id.str() + ": no such result");
  }
  if (repair_) (void)results_.materializer().drain();  // which says what fails in the log
  std::vector<Verified> out;
  std::set<Id> done;
  for (size_t i = 0; i < ids.size(); ++i) {
    const Id id = ids[i];
    if (!done.insert(id).second) continue;
    if (interrupt_.raised()) return fail(EINTR, "interrupted");
    auto found = check(id);
    if (!found) return Failure(found.error());
    if (found->action == Action::differs || found->action == Action::unreadable)
      spdlog::warn("verify: {}: {}", id.str(), found->why);
    out.push_back(std::move(*found));
    ids.insert(ids.end(), also_.begin(), also_.end());
    also_.clear();
  }
  return out;
}

Expected<Verified> Verifier::check(const Id& id) {
  if (isDirectory(core_.layout.result(), id.str())) return compare(id);
  const auto there = results_.stores(id);
  if (!there) return unreadable(id, there.error().message);
  if (!*there) return missing(id);
  return Verified{id.str(), Action::pending, "its files are not all in place yet"};
}

Verified Verifier::unreadable(const Id& id, const std::string& why) const {
  return {id.str(), Action::unreadable, why + (repair_ ? "; left where it is" : "")};
}

Expected<Verified> Verifier::missing(const Id& id) {
  auto gone = results_.isMissing(id, repair_);
  if (!gone) return Failure(gone.error());
  if (!*gone) return Verified{id.str(), Action::ok, "it was deleted, or is being saved, meanwhile"};
  Verified out{id.str(), Action::missing, "its directory is gone"};
  if (!repair_) return out;
  out.why += "; its row was dropped, so that it is built again";
  out.repaired = true;
  return out;
}

Expected<Verified> Verifier::record(const Id& id, const std::string& note) {
  auto done = core_.manifests.record(id, interrupt_);
  if (done) return Verified{id.str(), Action::recorded, note + ": recorded now"};
  const Error& error = done.error();
  if (error.code == EINTR) return Failure(error);
  if (!results_.has(id)) return Verified{id.str(), Action::ok, "it was deleted meanwhile"};
  const std::string why = fmt::format("{}, and it can't be read: {}", note, error.message);
  if (isShortage(error.code)) return unreadable(id, why);
  Verified out{id.str(), Action::differs, why};
  setAside(id, out);
  return out;
}

Expected<Verified> Verifier::compare(const Id& id) {
  auto manifest = ManifestReader::open(core_.manifests.path(id));
  if (!manifest && manifest.error().code == ENOENT) {
    return record(id, "there is nothing to compare with");
  }
  if (!manifest && manifest.error().code == EBADMSG) {
    return record(id, "what was recorded of it is damaged, so there is nothing to compare with");
  }
  if (!manifest) return unreadable(id, manifest.error().message);
  UniqueFd root(::openat(core_.layout.result().fd.get(), id.str().c_str(),
                         O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat st = {};
  if (!root.valid() || ::fstat(root.get(), &st) != 0) {
    if (errno == ENOENT) return Verified{id.str(), Action::ok, "it was deleted meanwhile"};
    const Error error = failErrno("open").value();
    if (isShortage(error.code)) return unreadable(id, error.message);
    Verified out{id.str(), Action::differs, "can't be read: " + error.message};
    setAside(id, out);
    return out;
  }
  // Held to the end, so that no other directory can have its inode number.
  const UniqueFd held(::openat(root.get(), ".", O_PATH | O_CLOEXEC));
  auto differences = compareWithManifest(*manifest, std::move(root), interrupt_);
  if (!differences && isShortage(differences.error().code)) {
    return unreadable(id, differences.error().message);
  }
  if (!differences) return Failure(differences.error());
  if (differences->empty()) {
    return Verified{id.str(), Action::ok,
                    fmt::format("as it was recorded at {:%Y-%m-%d %H:%M:%S} UTC",
                                fmt::gmtime(manifest->recorded()))};
  }
  struct stat now = {};
  if (::fstatat(core_.layout.result().fd.get(), id.str().c_str(), &now, AT_SYMLINK_NOFOLLOW) != 0 ||
      now.st_ino != st.st_ino) {
    return Verified{id.str(), Action::ok, "it was deleted meanwhile"};
  }
  auto row = core_.database->build(id.str());
  if (!row) return Failure(row.error());
  // OBuilder had the store and deleted it, and built it anew: that is no damage.
  if (*row && (*row)->created != manifest->created() && st.st_ctime > manifest->recorded()) {
    return record(id,
                  "it was made anew since it was recorded, so there is nothing to compare with");
  }
  Verified out{id.str(), Action::differs, fmt::format("{}", fmt::join(*differences, "; "))};
  setAside(id, out);
  return out;
}

void Verifier::setAside(const Id& id, Verified& found) {
  if (!repair_) return;
  std::vector<std::string> dependents;
  if (auto children = core_.database->children(id.str())) dependents = std::move(*children);
  auto done = results_.setAside(id);
  if (!done) {
    found.why += "; not set aside: " + done.error().message;
    return;
  }
  found.repaired = true;
  found.why += "; " + *done;
  if (dependents.empty()) return;
  found.why += fmt::format("; what was built on it stays, if it is whole itself: {}",
                           fmt::join(dependents, ", "));
  for (const std::string& name : dependents) {
    if (auto child = Id::parse(name); child && results_.has(*child)) also_.push_back(*child);
  }
}

}  // namespace kilnfs
