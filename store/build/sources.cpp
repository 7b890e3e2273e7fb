#include "store/build/sources.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>

#include "store/build/digest.h"
#include "store/tree/system.h"

namespace kilnfs {
namespace {

namespace fs = std::filesystem;

Failure about(const std::string& path, const Error& error) {
  return fail(error.code, fmt::format("copy {}: {}", inQuotes(path), error.message));
}

/// Whether `path` comes back by ".." from below an entry of `top`. Without going there nobody can
/// tell where that leads to: on the way there may be links.
bool climbsBelow(const std::string& top, const std::string& path) {
  fs::path place;
  for (const fs::path& part : fs::path(path)) {
    const std::string here = place.string();
    if (part == ".." && here.starts_with(top) && here.find('/', top.size()) != std::string::npos) {
      return true;
    }
    place = (place / part).lexically_normal();
  }
  return false;
}

/// Field by field what determines the result, but for the content that is copied.
void digestRequest(Digest& digest, const BuildRequest& request, const Account& account) {
  digest.field("kilnfs build 1");
  digest.field(request.base ? request.base->str() : "");
  digest.field(request.argv.size());
  for (const std::string& word : request.argv) digest.field(word);
  std::map<std::string, std::string> env;  // a later one wins, the order does not matter
  for (const std::string& pair : request.env) env[pair.substr(0, pair.find('='))] = pair;
  digest.field(env.size());
  for (const auto& [key, pair] : env) digest.field(pair);
  digest.field(uint64_t{account.uid});
  digest.field(uint64_t{account.gid});
  digest.field("sandbox host");
  digest.field(request.caches.size());
  for (const BuildRequest::Cache& cache : request.caches) {
    digest.field(cache.destination.empty() ? cache.name.str() : cache.destination);
  }
  digest.field(request.copies.size());
}

}  // namespace

Expected<std::string> Sources::resolve(const std::string& source, const Requester& who) {
  if (source.starts_with('/')) return source;
  if (who.cwd.empty()) {
    return fail(EINVAL, fmt::format("{} is relative and your working directory is not known: give "
                                    "an absolute path",
                                    inQuotes(source)));
  }
  return who.cwd + "/" + source;
}

bool Sources::belowMount(const std::string& path) const {
  return !mount_.empty() && (path == mount_ || path.starts_with(mount_ + "/"));
}

Expected<Sources::Found> Sources::find(const std::string& path, const Account& account) const {
  const std::string normal = fs::path(path).lexically_normal().string();
  if (!belowMount(normal)) return Found{path, nullptr, {}, {}};
  const std::string results = mount_ + "/results/";
  const std::string rest = normal.starts_with(results) ? normal.substr(results.size()) : "";
  if (climbsBelow(results, path)) {
    return fail(EINVAL, fmt::format("copy {}: within a result no path may lead up by \"..\"",
                                    inQuotes(path)));
  }
  const size_t slash = rest.find('/');
  auto id = Id::parse(rest.substr(0, slash), "id");
  if (!id) {
    return fail(EINVAL, fmt::format("copy {}: of the mounted tree only what is below results/ can "
                                    "be copied",
                                    inQuotes(path)));
  }
  auto result = store_.basis(*id);
  // What is elsewhere is reached by way of directories that are not this result's, with other
  // modes.
  if (result && *result && !(*result)->plain() && account.uid != ::geteuid()) {
    if (auto done = store_.completeDeletes(); !done) return about(path, done.error());
    result = store_.basis(*id);
  }
  if (!result) return Failure(result.error());
  if (*result == nullptr) {
    return fail(ENOENT, fmt::format("copy {}: no such result", inQuotes(path)));
  }
  auto root = (*result)->open("", O_PATH | O_DIRECTORY);
  if (!root) return about(path, root.error());
  std::string below = slash == std::string::npos ? "" : rest.substr(slash + 1);
  while (below.ends_with('/')) below.pop_back();
  return Found{path, std::move(*result), std::move(*root), std::move(below)};
}

Expected<UniqueFd> Sources::open(const Found& found) {
  if (!found.result) {
    UniqueFd fd(::open(found.path.c_str(), O_PATH | O_CLOEXEC));
    if (!fd.valid() && errno == ENOENT) {
      // A link that leads nowhere is copied as it is.
      fd.reset(::open(found.path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    }
    if (!fd.valid()) return failErrno("copy " + inQuotes(found.path));
    return fd;
  }
  auto fd = !found.result->plain() ? found.result->open(found.below, O_PATH)
            : found.below.empty()  ? reopen(found.root.get(), O_PATH)
                                   : openBeneath(found.root.get(), found.below, O_PATH);
  if (!fd) return about(found.path, fd.error());
  return fd;
}

Expected<bool> Sources::isDirectory(const std::string& path, const Account& account) const {
  const auto found = find(path, account);
  if (!found) return Failure(found.error());
  const ActAs rights(account);
  if (!rights.ok()) return fail(EPERM, "can't take on the user's rights");
  const auto fd = open(*found);
  if (!fd) return Failure(fd.error());
  struct stat st = {};
  if (::fstat(fd->get(), &st) != 0) return failErrno("copy " + inQuotes(path));
  return S_ISDIR(st.st_mode);
}

Expected<Id> Sources::automaticId(const BuildRequest& request, const Requester& who,
                                  const Account& account, Interrupt& interrupt) const {
  Digest digest;
  digestRequest(digest, request, account);
  for (const BuildRequest::Copy& copy : request.copies) {
    auto path = resolve(copy.source, who);
    if (!path) return Failure(path.error());
    auto directory = isDirectory(*path, account);
    if (!directory) return Failure(directory.error());
    digest.field(copy.destination);
    // The way to the last name is the kernel's to find, as it is when that is copied: it goes
    // through a link before "..".
    const size_t last = *directory ? path->size() : path->rfind('/') + 1;
    const std::string name = path->substr(last);
    // Let go of with the daemon's own rights, as what is left of a result may have to be.
    const auto found = find(path->substr(0, last), account);
    if (!found) return Failure(found.error());
    const ActAs rights(account);
    if (!rights.ok()) return fail(EPERM, "can't take on the user's rights");
    const auto opened = open(*found);
    if (!opened) return Failure(opened.error());
    OpenElsewhere elsewhere;
    if (found->result && !found->result->plain()) {
      elsewhere = [&](const std::string& within) {
        const std::string there = within.empty() ? found->below : pathBelow(found->below, within);
        return found->result->open(there, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      };
    }
    const Status done = digestTree(digest, opened->get(), name, interrupt, elsewhere);
    if (!done) return about(*path, done.error());
  }
  auto text = digest.finish();
  if (!text) return Failure(text.error());
  return Id::parse(*text, "id");
}

}  // namespace kilnfs
