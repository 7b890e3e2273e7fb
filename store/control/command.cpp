#include "store/control/command.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "store/control/options.h"

namespace kilnfs {
namespace {

const std::vector<CommandSpec>& specs() {
  static const std::vector<CommandSpec> kSpecs = {
      {"build",
       "[ID] [--base ID] [--copy SRC[:DST]]... [--cache NAME[:DST]]... [--env K=V]... "
       "[--user UID[:GID]] [--sandbox host] [--timeout DUR] [--wait] [--retry] "
       "(-c SHELL | -- ARG...)",
       0,
       1,
       {{"--base", "ID"},
        {"--copy", "SRC[:DST]", true},
        {"--cache", "NAME[:DST]", true},
        {"--env", "K=V", true},
        {"--user", "UID[:GID]"},
        {"--sandbox", "host"},
        {"--network", "host"},
        {"--timeout", "duration"},
        {"--wait", ""},
        {"--retry", ""},
        {"-c", "shell command"}},
       true},
      {"wait", "ID...", 1, 10000},
      {"follow", "ID", 1, 1},
      {"cancel", "ID", 1, 1},
      {"delete", "ID [--recursive]", 1, 1, {{"--recursive", ""}}},
      {"delete-cache", "NAME [--force]", 1, 1, {{"--force", ""}}},
      {"lease", "NAME [--as TAG] [--ttl DUR]", 1, 1, {{"--as", "tag"}, {"--ttl", "duration"}}},
      {"release", "LEASE [--discard]", 1, 1, {{"--discard", ""}}},
      {"import", "ID SOURCE", 2, 2},
      {"export", "ID DEST", 2, 2},
      {"complete-deletes", "", 0, 0},
      {"status", "", 0, 0},
      {"help", "", 0, 1},
  };
  return kSpecs;
}

bool comesLater(std::string_view name) {
  return name == "pin" || name == "unpin" || name == "prune" || name == "verify";
}

std::string shown(std::string_view text) {
  return inQuotes(text.substr(0, 60)) + (text.size() > 60 ? "..." : "");
}

template <class Number>
std::optional<Number> parseNumber(std::string_view text) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

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
      return fail(EINVAL, fmt::format("--env {}: use NAME=VALUE", shown(value)));
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

Expected<Command> makeBuild(const CommandSpec& spec, const ParsedWords& parsed) {
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

Expected<Command> makeWait(const ParsedWords& parsed) {
  WaitCommand out;
  for (const std::string& word : parsed.positional) {
    auto id = Id::parse(word, "id");
    if (!id) return Failure(id.error());
    out.ids.push_back(std::move(*id));
  }
  return out;
}

Expected<Command> makeLease(const ParsedWords& parsed) {
  auto name = CacheName::parse(parsed.positional[0], "cache name");
  if (!name) return Failure(name.error());
  LeaseCommand out{std::move(*name), std::nullopt, std::nullopt};
  if (const std::string* tag = parsed.find("--as"); tag != nullptr) {
    auto valid = Name::parse(*tag, "tag");
    if (!valid) return Failure(valid.error());
    out.tag = *tag;
  }
  if (const std::string* ttl = parsed.find("--ttl"); ttl != nullptr) {
    if (!out.tag) return fail(EINVAL, "lease: --ttl is for leases with a tag: add --as TAG");
    auto duration = parseDuration(*ttl);
    if (!duration) return Failure(duration.error());
    out.ttl = std::chrono::ceil<std::chrono::seconds>(*duration);
  }
  return out;
}

/// The commands whose first word is an id.
Expected<Command> makeForId(std::string_view name, const ParsedWords& parsed) {
  auto id = Id::parse(parsed.positional[0], "id");
  if (!id) return Failure(id.error());
  if (name == "follow") return FollowCommand{std::move(*id)};
  if (name == "cancel") return CancelCommand{std::move(*id)};
  if (name == "delete") return DeleteCommand{std::move(*id), parsed.has("--recursive")};
  const std::string& path = parsed.positional[1];
  if (path.empty()) return fail(EINVAL, fmt::format("{}: an empty path", name));
  if (name == "import") return ImportCommand{std::move(*id), path};
  return ExportCommand{std::move(*id), path};
}

Expected<Command> make(const CommandSpec& spec, const ParsedWords& parsed) {
  if (spec.name == "build") return makeBuild(spec, parsed);
  if (spec.name == "wait") return makeWait(parsed);
  if (spec.name == "lease") return makeLease(parsed);
  if (spec.name == "release") {
    return ReleaseCommand{parsed.positional[0], parsed.has("--discard")};
  }
  if (spec.name == "delete-cache") {
    auto name = CacheName::parse(parsed.positional[0], "cache name");
    if (!name) return Failure(name.error());
    return DeleteCacheCommand{std::move(*name), parsed.has("--force")};
  }
  if (spec.name == "complete-deletes") return CompleteDeletesCommand{};
  if (spec.name == "status") return StatusCommand{};
  if (spec.name == "help") return HelpCommand{};
  return makeForId(spec.name, parsed);
}

}  // namespace

std::vector<std::string> commandNames() {
  std::vector<std::string> names;
  for (const CommandSpec& spec : specs()) names.emplace_back(spec.name);
  return names;
}

Expected<Command> parseCommand(const Words& words) {
  if (words.empty()) return fail(EINVAL, "an empty command");
  for (const CommandSpec& spec : specs()) {
    if (spec.name != words[0]) continue;
    auto parsed = parseWords(spec, words);
    if (!parsed) return Failure(parsed.error());
    return make(spec, *parsed);
  }
  if (comesLater(words[0])) {
    return fail(EOPNOTSUPP, fmt::format("{} comes in a later version", words[0]));
  }
  return fail(EINVAL, fmt::format("unknown command {}; commands: {}", shown(words[0]),
                                  fmt::join(commandNames(), ", ")));
}

Expected<std::chrono::milliseconds> parseDuration(std::string_view text) {
  struct Unit {
    std::string_view suffix;
    int64_t millis;
  };
  constexpr Unit kUnits[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
  constexpr int64_t kLongest = int64_t{36500} * 86400000;
  std::string_view digits = text;
  int64_t unit = 1000;
  for (const Unit& u : kUnits) {
    if (!text.ends_with(u.suffix)) continue;
    digits = text.substr(0, text.size() - u.suffix.size());
    unit = u.millis;
    break;
  }
  const auto number = parseNumber<int64_t>(digits);
  if (!number || *number <= 0 || *number > kLongest / unit) {
    return fail(EINVAL, fmt::format("{} is not a duration: use a number above 0 with ms, s, m, h "
                                    "or d, as in 90, 500ms or 2h",
                                    shown(text)));
  }
  return std::chrono::milliseconds(*number * unit);
}

std::string controlHelp() {
  std::string out =
      "Write commands here, one a line, then read the answers, one JSON line each:\n"
      "    exec 3<>control; echo build hello --wait -c \"'echo hi >file'\" >&3; cat <&3\n"
      "Words are quoted as for a shell. One write carries whole commands; the first that fails\n"
      "ends it. The last failures are in the file errors.\n\n";
  for (const CommandSpec& spec : specs()) {
    out += fmt::format("{}{}{}\n", spec.name, spec.usage.empty() ? "" : " ", spec.usage);
  }
  return out;
}

}  // namespace kilnfs
