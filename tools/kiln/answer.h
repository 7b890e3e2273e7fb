// What the control file answered to one command.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace kilnfs {

// Exit statuses of kiln that are not the command's own.
constexpr int kExitRefused = 1;
constexpr int kExitUsage = 2;
constexpr int kSignalBase = 128;

struct Answer {
  bool ok = false;
  std::string errnoName;  // "ENOENT"; empty when ok
  std::string message;    // for people; may be empty
  nlohmann::json json;    // the whole line

  /// A member as text, or empty: strings as they are, others as JSON.
  std::string text(const char* member) const;
};

/// The last whole line of `lines` that is an answer; nothing if there is none (as in the help
/// text).
std::optional<Answer> lastAnswer(std::string_view lines);

/// kiln's exit status: 0; the command's own status, or 128 + its signal; 2 for a request that the
/// store could not understand; 1 for any other refusal.
int exitStatus(const Answer& answer);

/// One sentence on a failure, never empty.
std::string failureText(const Answer& answer);

}  // namespace kilnfs
