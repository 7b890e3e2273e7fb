#include "store/control/command.h"

#include <fmt/format.h>

#include <algorithm>

#include "store/base/units.h"
#include "store/control/command_build.h"
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
      {"lease",
       "NAME [--as TAG] [--ttl DUR] [--discard]",
       1,
       1,
       {{"--as", "tag"}, {"--ttl", "duration"}, {"--discard", ""}}},
      {"release", "LEASE [--discard]", 1, 1, {{"--discard", ""}}},
      {"import", "ID SOURCE", 2, 2},
      {"export", "ID DEST", 2, 2},
      {"pin", "ID", 1, 1},
      {"unpin", "ID", 1, 1},
      {"prune",
       "[--before DUR] [--max-used SIZE] [--min-free SIZE|PCT] [--max N] [--dry-run]",
       0,
       0,
       {{"--before", "duration"},
        {"--max-used", "size"},
        {"--min-free", "size or percentage"},
        {"--max", "number"},
        {"--dry-run", ""}}},
      {"verify", "[ID...] [--repair]", 0, 10000, {{"--repair", ""}}},
      {"complete-deletes", "", 0, 0},
      {"status", "", 0, 0},
      {"help", "", 0, 1},
  };
  return kSpecs;
}

Expected<std::vector<Id>> parseIds(const Words& words) {
  std::vector<Id> out;
  for (const std::string& word : words) {
    auto id = Id::parse(word, "id");
    if (!id) return Failure(id.error());
    out.push_back(std::move(*id));
  }
  return out;
}

Expected<Command> makePrune(const ParsedWords& parsed) {
  PruneCommand out{{}, parsed.has("--dry-run")};
  if (const std::string* before = parsed.find("--before"); before != nullptr) {
    auto duration = parseDuration(*before);
    if (!duration) return Failure(duration.error());
    out.limits.before = std::chrono::ceil<std::chrono::seconds>(*duration);
  }
  if (const std::string* used = parsed.find("--max-used"); used != nullptr) {
    auto size = parseSize(*used);
    if (!size) return Failure(size.error());
    out.limits.maxUsed = *size;
  }
  if (const std::string* free = parsed.find("--min-free"); free != nullptr) {
    auto portion = parsePortion(*free);
    if (!portion) return Failure(portion.error());
    out.limits.minFree = *portion;
  }
  if (const std::string* most = parsed.find("--max"); most != nullptr) {
    out.limits.maxCount = parseNumber<uint64_t>(*most);
    if (!out.limits.maxCount) {
      return fail(EINVAL,
                  fmt::format("--max {}: use the number of results that may stay", shown(*most)));
    }
  }
  return out;
}

Expected<Command> makeLease(const ParsedWords& parsed) {
  auto name = CacheName::parse(parsed.positional[0], "cache name");
  if (!name) return Failure(name.error());
  LeaseCommand out{std::move(*name), std::nullopt, std::nullopt, parsed.has("--discard")};
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
  if (out.discard && out.tag) {
    return fail(EINVAL,
                "lease: --discard is for leases that end with the open file: leave out --as");
  }
  return out;
}

/// The commands whose first word is an id.
Expected<Command> makeForId(std::string_view name, const ParsedWords& parsed) {
  auto id = Id::parse(parsed.positional[0], "id");
  if (!id) return Failure(id.error());
  if (name == "follow") return FollowCommand{std::move(*id)};
  if (name == "cancel") return CancelCommand{std::move(*id)};
  if (name == "pin" || name == "unpin") return PinCommand{std::move(*id), name == "pin"};
  if (name == "delete") return DeleteCommand{std::move(*id), parsed.has("--recursive")};
  const std::string& path = parsed.positional[1];
  if (path.empty()) return fail(EINVAL, fmt::format("{}: an empty path", name));
  if (name == "import") return ImportCommand{std::move(*id), path};
  return ExportCommand{std::move(*id), path};
}

Expected<Command> make(const CommandSpec& spec, const ParsedWords& parsed) {
  if (spec.name == "build") return makeBuild(spec, parsed);
  if (spec.name == "wait" || spec.name == "verify") {
    auto ids = parseIds(parsed.positional);
    if (!ids) return Failure(ids.error());
    if (spec.name == "wait") return WaitCommand{std::move(*ids)};
    return VerifyCommand{std::move(*ids), parsed.has("--repair")};
  }
  if (spec.name == "prune") return makePrune(parsed);
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
  return fail(EINVAL, fmt::format("unknown command {}; commands: {}", shown(words[0]),
                                  fmt::join(commandNames(), ", ")));
}

std::string publicText(Words words) {
  constexpr std::string_view kEnv = "--env";
  constexpr std::string_view kJoined = "--env=";
  // Wherever it is: what is no option there may have been meant as one.
  for (size_t at = 0; at < words.size(); ++at) {
    const bool joined = words[at].starts_with(kJoined);
    if (!joined && (words[at] != kEnv || ++at == words.size())) continue;
    const size_t equals = words[at].find('=', joined ? kJoined.size() : 0);
    if (equals != std::string::npos) words[at] = words[at].substr(0, equals + 1) + "...";
  }
  return joinWords(words);
}

std::string publicBeginning(std::string_view text) {
  constexpr std::string_view kMore = "...";
  const size_t whole = wholeCommands(text);
  if (whole < text.size()) text.remove_prefix(whole);
  const auto next = [&text] {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    const std::string_view word = text.substr(0, text.find_first_of(" \t\n"));
    text.remove_prefix(word.size());
    return word;
  };
  // What is no command may be the rest of a value.
  const std::string_view name = next();
  const auto names = commandNames();
  if (std::find(names.begin(), names.end(), name) == names.end()) return std::string(kMore);
  std::string out(name);
  const std::string_view id = next();
  const bool plain = Name::valid(id) && !id.starts_with('-');
  if (plain) out.append(" ").append(id);
  const bool all = (plain || id.empty()) && text.find_first_not_of(" \t\n") == text.npos;
  return all ? out : out.append(" ").append(kMore);
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
