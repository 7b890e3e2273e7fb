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

std::optional<int> number(const Answer& answer, const char* member) {
  const auto found = answer.json.find(member);
  if (found == answer.json.end() || !found->is_number_integer()) return std::nullopt;
  return found->get<int>();
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
  const auto signal = number(answer, "signal");
  if (signal && *signal > 0) return kSignalBase + *signal;
  const auto exit = number(answer, "exit");
  if (exit && *exit != 0) return *exit;
  if (answer.ok) return 0;
  return answer.errnoName == "EINVAL" || answer.errnoName == "E2BIG" ? kExitUsage : kExitRefused;
}

std::string failureText(const Answer& answer) {
  if (!answer.message.empty()) return answer.message;
  if (!answer.errnoName.empty()) return answer.errnoName;
  return "the store refused and did not say why";
}

}  // namespace kilnfs
