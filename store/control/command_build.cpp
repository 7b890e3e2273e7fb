#include "store/control/command_build.h"

#include <fmt/format.h>

#include <limits>

#include "store/base/units.h"

namespace kilnfs {
namespace {

/// A place below the tmpdir, without "." and doubled slashes; a slash at the end is kept.
Expected<std::string> parseDestination(std::string_view text, std::string_view option) {
  if (text.starts_with('/')) {
    return fail(EINVAL, fmt::format("{}: destination {} is absolute: it is a path below the "
                                    "build's directory",
                                    option, shown(text)));
  }
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t slash = std::min(text.find('/', at), text.size());
    const std::string_view part = text.substr(at, slash - at);
    if (part == "..") {
      return fail(EINVAL, fmt::format("{}: destination {} has a .. in it", option, shown(text)));
    }
    at = slash + 1;
    if (part.empty() || part == ".") continue;
    if (!out.empty()) out += '/';
    out += part;
  }
  if (!out.empty() && text.ends_with('/')) out += '/';
  return out;
}

Expected<BuildRequest::Copy> parseCopy(const std::string& text) {
  const size_t colon = text.rfind(':');
  BuildRequest::Copy copy{text.substr(0, colon), {}};
  if (copy.source.empty()) return fail(EINVAL, "--copy needs a source: SRC[:DST]");
  if (colon == std::string::npos) return copy;
  auto destination = parseDestination(std::string_view(text).substr(colon + 1), "--copy");
  if (!destination) return Failure(destination.error());
  copy.destination = std::move(*destination);
  return copy;
}

Expected<BuildRequest::Cache> parseCache(const std::string& text) {
  const size_t colon = text.find(':');
  auto name = CacheName::parse(text.substr(0, colon), "cache name");
  if (!name) return Failure(name.error());
  BuildRequest::Cache cache{std::move(*name), {}};
  if (colon == std::string::npos) return cache;
  auto destination = parseDestination(std::string_view(text).substr(colon + 1), "--cache");
  if (!destination) return Failure(destination.error());
  cache.destination = std::move(*destination);
  while (cache.destination.ends_with('/')) cache.destination.pop_back();
  if (cache.destination.empty()) {
    return fail(EINVAL, fmt::format("--cache {}: a cache can't take the place of the whole "
                                    "directory: name a path below it",
                                    shown(text)));
  }
  return cache;
}

Expected<BuildCommand::Account> parseAccount(const std::string& text) {
  const size_t colon = text.find(':');
  const auto uid = parseNumber<uid_t>(std::string_view(text).substr(0, colon));
  BuildCommand::Account account{uid.value_or(0), std::nullopt};
  bool good = uid.has_value() && *uid != std::numeric_limits<uid_t>::max();
  if (colon != std::string::npos) {
    account.gid = parseNumber<gid_t>(std::string_view(text).substr(colon + 1));
    good = good && account.gid.has_value() && *account.gid != std::numeric_limits<gid_t>::max();
  }
  if (!good) {
    return fail(EINVAL, fmt::format("--user {}: use numbers, UID or UID:GID", shown(text)));
  }
  return account;
}

Status takeBuildOption(std::string_view name, const std::string& value, BuildCommand& out) {
  BuildRequest& request = out.request;
  if (name == "--copy") {
    auto copy = parseCopy(value);
    if (!copy) return Failure(copy.error());
    request.copies.push_back(std::move(*copy));
  } else if (name == "--cache") {
    auto cache = parseCache(value);
    if (!cache) return Failure(cache.error());
    request.caches.push_back(std::move(*cache));
  } else if (name == "--env") {
    if (value.find('=') == std::string::npos || value.front() == '=') {
      // Not what follows the "=": others may read why it was refused.
      return fail(EINVAL, fmt::format("--env {}: use NAME=VALUE",
                                      value.starts_with('=') ? "'=...'" : shown(value)));
    }
    request.env.push_back(value);
  } else if (name == "--base") {
    auto base = Id::parse(value, "id");
    if (!base) return Failure(base.error());
    request.base = std::move(*base);
  } else if (name == "--user") {
    auto account = parseAccount(value);
    if (!account) return Failure(account.error());
    out.user = *account;
  } else if (name == "--timeout") {
    auto timeout = parseDuration(value);
    if (!timeout) return Failure(timeout.error());
    request.timeout = *timeout;
  } else if (name == "--network" || (name == "--sandbox" && value == "root")) {
    return fail(EOPNOTSUPP, fmt::format("{} {} comes in a later version; commands run with "
                                        "--sandbox host and the host's network",
                                        name, shown(value)));
  } else if (name == "--sandbox" && value != "host") {
    return fail(EINVAL, fmt::format("--sandbox {}: use host", shown(value)));
  } else if (name == "--wait") {
    out.wait = true;
  } else if (name == "--retry") {
    request.retry = true;
  }
  return {};
}

}  // namespace

Expected<BuildCommand> makeBuild(const CommandSpec& spec, const ParsedWords& parsed) {
  BuildCommand out;
  for (const auto& [name, value] : parsed.options) {
    if (auto taken = takeBuildOption(name, value, out); !taken) return Failure(taken.error());
  }
  if (!parsed.positional.empty()) {
    auto id = Id::parse(parsed.positional[0], "id");
    if (!id) return Failure(id.error());
    out.request.id = std::move(*id);
  }
  const std::string* shell = parsed.find("-c");
  if (shell != nullptr && parsed.argv) return usageError(spec, "both -c and -- are given");
  if (shell != nullptr) {
    out.request.argv = {"/bin/sh", "-c", *shell};
  } else if (parsed.argv && !parsed.argv->empty() && !parsed.argv->front().empty()) {
    out.request.argv = *parsed.argv;
  } else {
    return usageError(spec, "no command: give -c SHELL or -- ARG...");
  }
  return out;
}

}  // namespace kilnfs
