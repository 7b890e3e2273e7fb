#include "tools/kiln/answer.h"

namespace kilnfs {
namespace {

std::optional<Answer> parseAnswer(std::string_view line) {
  auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("ok") || !json["ok"].is_boolean()) return std::nullopt;
  Answer answer;
  answer.json = std::move(json);
  answer.ok = answer.json["ok"].get<bool>();
  answer.errnoName = answer.text("errno");
  answer.message = answer.text("message");
  return answer;
}

int number(const nlohmann::json& object, const char* member) {
  const auto found = object.find(member);
  return found != object.end() && found->is_number_integer() ? found->get<int>() : 0;
}

// How the command of a build ended, as a shell would say it; 0 if it succeeded or did not end.
int commandStatus(const nlohmann::json& build) {
  if (!build.is_object()) return 0;
  const int signal = number(build, "signal");
  return signal > 0 ? kSignalBase + signal : number(build, "exit");
}

}  // namespace

std::string Answer::text(const char* member) const {
  const auto found = json.find(member);
  if (found == json.end() || found->is_null()) return {};
  if (found->is_string()) return found->get<std::string>();
  return found->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<Answer> lastAnswer(std::string_view lines) {
  while (!lines.empty()) {
    const size_t end = lines.find_last_not_of('\n');
    if (end == std::string_view::npos) break;
    lines = lines.substr(0, end + 1);
    const size_t start = lines.rfind('\n');
    const auto line = start == std::string_view::npos ? lines : lines.substr(start + 1);
    if (auto answer = parseAnswer(line)) return answer;
    if (start == std::string_view::npos) break;
    lines = lines.substr(0, start);
  }
  return std::nullopt;
}

int exitStatus(const Answer& answer) {
  if (const int status = commandStatus(answer.json); status != 0) return status;
  if (answer.ok) return 0;
  // An answer to several commands: the first that failed decides.
  const auto builds = answer.json.find("builds");
  if (builds != answer.json.end() && builds->is_array()) {
    for (const auto& build : *builds) {
      if (const int status = commandStatus(build); status != 0) return status;
    }
  }
  return answer.errnoName == "EINVAL" || answer.errnoName == "E2BIG" ? kExitUsage : kExitRefused;
}

std::string failureText(const Answer& answer) {
  if (!answer.message.empty()) return answer.message;
  if (!answer.errnoName.empty()) return answer.errnoName;
  return "the store refused and did not say why";
}

}  // namespace kilnfs
