#include "tools/kiln/words.h"

#include <algorithm>
#include <array>

#include "store/base/name.h"

namespace kilnfs {
namespace {

// Options of build whose value is the next word, which is therefore no option itself.
bool takesValue(std::string_view word) {
  constexpr std::array<std::string_view, 9> kOptions = {"--base",    "--copy",    "--cache",
                                                        "--env",     "--user",    "--sandbox",
                                                        "--network", "--timeout", "-c"};
  return std::find(kOptions.begin(), kOptions.end(), word) != kOptions.end();
}

std::string absolute(const std::string& path, const std::string& cwd) {
  if (path.empty() || path.front() == '/') return path;
  return cwd + (cwd.ends_with('/') ? "" : "/") + path;
}

void makeCopiesAbsolute(Words& words, const std::string& cwd) {
  constexpr std::string_view kCopy = "--copy";
  for (size_t i = 1; i < words.size() && words[i] != "--"; ++i) {
    if (words[i].starts_with("--copy=")) {
      words[i] = "--copy=" + absolute(words[i].substr(kCopy.size() + 1), cwd);
    } else if (takesValue(words[i])) {
      const bool copy = words[i] == kCopy;
      if (++i < words.size() && copy) words[i] = absolute(words[i], cwd);
    }
  }
}

// Makes the second operand (import ID SOURCE, export ID DEST) absolute.
void makeSecondAbsolute(Words& words, const std::string& cwd) {
  int operands = 0;
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i].starts_with("-")) continue;
    if (++operands == 2) words[i] = absolute(words[i], cwd);
  }
}

}  // namespace

std::string commandLine(const Words& words) {
  return joinWords(words) + "\n";
}

Words withAbsolutePaths(Words words, const std::string& cwd) {
  if (words.empty()) return words;
  if (words[0] == "build") makeCopiesAbsolute(words, cwd);
  if (words[0] == "import" || words[0] == "export") makeSecondAbsolute(words, cwd);
  return words;
}

bool asksForHelp(const Words& words) {
  for (size_t i = 1; i < words.size() && words[i] != "--"; ++i) {
    if (words[i] == "--help" || words[i] == "-h") return true;
    if (takesValue(words[i])) ++i;
  }
  return false;
}

BuildWords splitBuildWords(const Words& words) {
  BuildWords out;
  out.words = {"build"};
  Words rest;
  size_t i = 1;
  for (; i < words.size() && words[i] != "--"; ++i) {
    if (words[i] == "--detach") {
      out.detach = true;
    } else if (words[i] == "--json") {
      out.json = true;
    } else if (words[i] != "--wait") {
      rest.push_back(words[i]);
      if (out.id.empty() && !words[i].starts_with('-')) out.id = words[i];
      if (takesValue(words[i]) && i + 1 < words.size()) rest.push_back(words[++i]);
    }
  }
  rest.insert(rest.end(), words.begin() + static_cast<ptrdiff_t>(std::min(i, words.size())),
              words.end());
  if (!out.detach) out.words.emplace_back("--wait");
  out.words.insert(out.words.end(), rest.begin(), rest.end());
  return out;
}

Expected<CacheOption> parseCacheOption(std::string_view text) {
  const size_t end = text.find_first_of(":=");
  CacheOption option{std::string(text.substr(0, end)), {}};
  if (auto name = CacheName::parse(option.name, "cache name"); !name) {
    return Failure(std::move(name.error()));
  }
  if (end == std::string_view::npos) return option;
  option.directory = text.substr(end + 1);
  if (option.directory.empty()) {
    return fail(EINVAL, "--cache " + inQuotes(text) + ": no directory after the name");
  }
  return option;
}

}  // namespace kilnfs
