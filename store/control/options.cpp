#include "store/control/options.h"

#include <fmt/format.h>

#include <algorithm>

namespace kilnfs {
namespace {

const OptionSpec* findOption(const CommandSpec& spec, std::string_view name) {
  const auto it = std::find_if(spec.options.begin(), spec.options.end(),
                               [&](const OptionSpec& option) { return option.name == name; });
  return it == spec.options.end() ? nullptr : &*it;
}

/// Takes the option at words[at] (and its value); moves `at` to the last word taken.
Status takeOption(const CommandSpec& spec, const Words& words, size_t& at, ParsedWords& out) {
  const std::string& word = words[at];
  const size_t equals = word.starts_with("--") ? word.find('=') : std::string::npos;
  const OptionSpec* option = findOption(spec, std::string_view(word).substr(0, equals));
  if (option == nullptr) {
    return usageError(spec, "unknown option " + inQuotes(word.substr(0, equals)));
  }
  if (!option->repeats && out.has(option->name)) {
    return usageError(spec, fmt::format("{} is given twice", option->name));
  }
  std::string value;
  if (option->value.empty()) {
    if (equals != std::string::npos) {
      return usageError(spec, fmt::format("{} takes no value", option->name));
    }
  } else if (equals != std::string::npos) {
    value = word.substr(equals + 1);
  } else if (++at < words.size()) {
    value = words[at];
  } else {
    return usageError(spec, fmt::format("{} needs a {}", option->name, option->value));
  }
  out.options.emplace_back(option->name, std::move(value));
  return {};
}

}  // namespace

const std::string* ParsedWords::find(std::string_view name) const {
  const auto it = std::find_if(options.rbegin(), options.rend(),
                               [&](const auto& option) { return option.first == name; });
  return it == options.rend() ? nullptr : &it->second;
}

Expected<ParsedWords> parseWords(const CommandSpec& spec, const Words& words) {
  ParsedWords out;
  bool optionsEnded = false;
  for (size_t at = 1; at < words.size(); ++at) {
    const std::string& word = words[at];
    if (!optionsEnded && word == "--") {
      if (spec.argvAfterDashes) {
        out.argv = Words(words.begin() + static_cast<std::ptrdiff_t>(at) + 1, words.end());
        break;
      }
      optionsEnded = true;
    } else if (!optionsEnded && word.size() > 1 && word.front() == '-') {
      if (auto taken = takeOption(spec, words, at, out); !taken) return Failure(taken.error());
    } else {
      out.positional.push_back(word);
    }
  }
  if (out.positional.size() > spec.most) {
    return usageError(spec, "unexpected word " + inQuotes(out.positional[spec.most]));
  }
  if (out.positional.size() < spec.least) return usageError(spec, "something is missing");
  return out;
}

Failure usageError(const CommandSpec& spec, const std::string& message) {
  return fail(EINVAL, fmt::format("{}: {}; usage: {}{}{}", spec.name, message, spec.name,
                                  spec.usage.empty() ? "" : " ", spec.usage));
}

}  // namespace kilnfs
