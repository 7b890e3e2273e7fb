#include "tools/kiln/status_table.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <ctime>
#include <map>
#include <vector>

#include "store/base/units.h"

namespace kilnfs {
namespace {

using nlohmann::json;

// Bytes of a store's names may be no UTF-8; they are shown as U+FFFD then.
std::string dumped(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string clockText(int64_t seconds) {
  const std::time_t time = seconds;
  struct tm parts {};
  if (localtime_r(&time, &parts) == nullptr) return std::to_string(seconds);
  return fmt::format("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec);
}

constexpr int64_t kFirstTime = 1'000'000'000;

bool isTime(const std::string& name) {
  return name == "queued" || name == "started" || name == "ended" || name == "since";
}

std::string cell(const std::string& name, const json& value) {
  if (value.is_null()) return "-";
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_string()) {
    const auto text = value.get<std::string>();
    return text.empty() ? "-" : text;
  }
  if (value.is_number() && name.ends_with("bytes")) return sizeText(value.get<double>());
  if (value.is_number() && name.ends_with("Bytes")) return sizeText(value.get<double>());
  // A count may have the name of a time.
  if (value.is_number_integer() && isTime(name) && value.get<int64_t>() > kFirstTime) {
    return clockText(value.get<int64_t>());
  }
  if (value.is_number_float()) return fmt::format("{:.1f}", value.get<double>());
  return dumped(value);
}

// The members of all rows, each once, what names the row first.
std::vector<std::string> columnsOf(const json& rows) {
  std::vector<std::string> columns;
  const auto add = [&columns](const std::string& name) {
    if (std::find(columns.begin(), columns.end(), name) == columns.end()) columns.push_back(name);
  };
  for (const char* first : {"id", "lease", "name", "cache", "state"}) {
    for (const auto& row : rows) {
      if (row.is_object() && row.contains(first)) add(first);
    }
  }
  for (const auto& row : rows) {
    if (!row.is_object()) continue;
    for (const auto& [name, value] : row.items()) {
      if (name != "message") add(name);
    }
  }
  for (const auto& row : rows) {
    if (row.is_object() && row.contains("message")) add("message");
  }
  return columns;
}

std::string table(const json& rows) {
  const auto columns = columnsOf(rows);
  std::vector<std::vector<std::string>> cells{columns};
  for (const auto& row : rows) {
    auto& line = cells.emplace_back();
    if (!row.is_object()) {
      line.push_back(cell("", row));
      continue;
    }
    for (const auto& name : columns)
      line.push_back(row.contains(name) ? cell(name, row[name]) : "-");
  }
  if (columns.empty()) cells.erase(cells.begin());
  std::string out;
  for (const auto& line : cells) {
    std::string text = " ";
    for (size_t i = 0; i < line.size(); ++i) {
      size_t width = 0;
      for (const auto& other : cells)
        width = std::max(width, i < other.size() ? other[i].size() : 0);
      text += fmt::format(" {:<{}} ", line[i], width);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  }
  return out;
}

std::string members(const json& object) {
  std::string out;
  for (const auto& [name, value] : object.items()) {
    out += fmt::format("  {}: {}\n", name, cell(name, value));
  }
  return out;
}

// Those of which something has to be said before those of which not.
std::string resultsText(const json& results) {
  json sorted = json::array();
  std::map<std::string, size_t> counts;
  for (const bool quiet : {false, true}) {
    for (const auto& result : results) {
      if (!result.is_object()) continue;
      const std::string action = result.value("action", "-");
      if ((action == "kept" || action == "ok") != quiet) continue;
      ++counts[action];
      sorted.push_back(result);
    }
  }
  std::string out = table(sorted);
  std::vector<std::string> sums;
  for (const auto& [action, count] : counts) sums.push_back(fmt::format("{} {}", count, action));
  return out + (sums.empty() ? "no results" : fmt::format("{}", fmt::join(sums, ", "))) + "\n";
}

}  // namespace

std::string statusTable(const json& status) {
  std::string out;
  for (const auto& [name, value] : status.items()) {
    if (name == "ok") continue;
    if (value.is_array()) {
      out += fmt::format("{}: {}\n", name, value.empty() ? "none" : std::to_string(value.size()));
      out += table(value);
    } else if (value.is_object()) {
      out += name + ":\n" + members(value);
    } else {
      out += fmt::format("{}: {}\n", name, cell(name, value));
    }
  }
  return out;
}

std::string buildState(const json& status, const std::string& id) {
  size_t before = 0;
  for (const char* list : {"builds", "queue"}) {
    const auto builds = status.find(list);
    if (builds == status.end() || !builds->is_array()) continue;
    for (const auto& build : *builds) {
      if (!build.is_object()) continue;
      const std::string state = build.value("state", "");
      if (build.value("id", "") != id) {
        before += state == "queued" ? 1 : 0;
      } else if (state == "queued" && before != 0) {
        return fmt::format("queued, {} before it", before);
      } else {
        return state;
      }
    }
  }
  return "waiting";
}

std::string answerText(const json& answer) {
  const auto results = answer.find("results");
  if (results != answer.end() && results->is_array()) return resultsText(*results);
  const auto builds = answer.find("builds");
  if (builds != answer.end() && builds->is_array()) {
    std::string out;
    for (const auto& build : *builds) out += answerText(build);
    return out;
  }
  if (answer.contains("id") && answer.contains("state")) {
    return cell("id", answer["id"]) + ": " + cell("state", answer["state"]) + "\n";
  }
  std::string out;
  for (const auto& [name, value] : answer.items()) {
    if (name != "ok") out += name + ": " + cell(name, value) + "\n";
  }
  return out;
}

}  // namespace kilnfs
