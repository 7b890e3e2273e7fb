#include "tools/bench/report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

namespace kilnfs::bench {
namespace {

using Row = std::vector<std::string>;
using nlohmann::json;

std::string shown(double value, Unit unit) {
  if (unit == Unit::kMegabytes) return fmt::format("{:.1f} MB", value);
  if (unit == Unit::kCount) return fmt::format("{:.0f}", value);
  if (value < 1e-4) return fmt::format("{:.1f} us", value * 1e6);
  if (value < 1) return fmt::format("{:.1f} ms", value * 1e3);
  return fmt::format("{:.2f} s", value);
}

std::string cell(const Rounds& rounds, const Figure& figure, const std::string& contender) {
  const auto value = median(rounds.values(figure, contender));
  if (!value) return "-";
  if (figure.against == Against::kNothing ||
      (figure.against == Against::kNative && contender == kNative)) {
    return shown(*value, figure.unit);
  }
  const auto ratio = rounds.result(figure, contender);
  const std::string times = ratio ? fmt::format("{:.2f}x", *ratio) : "-";
  return figure.against == Against::kOwn ? shown(*value, figure.unit) + " " + times : times;
}

const char* word(Verdict verdict) {
  return verdict == Verdict::kPass ? "pass" : verdict == Verdict::kOver ? "OVER" : "unknown";
}

std::string limitText(const Figure& figure, double value) {
  return figure.against == Against::kNothing ? shown(value, figure.unit)
                                             : fmt::format("{:.4g}x", value);
}

// Contender, bound, what was measured, verdict.
Row judgement(const Figure& figure, const Judged& judged) {
  std::string bound = judged.bound.limit ? limitText(figure, *judged.bound.limit) : "";
  std::string measured;
  if (judged.bound.limit && judged.value) measured = limitText(figure, *judged.value);
  for (const auto& peer : judged.bound.notAbove) {
    bound += (bound.empty() ? "" : ", ") + peer;
    const auto found = judged.againstPeers.find(peer);
    measured += measured.empty() ? "" : ", ";
    measured += found == judged.againstPeers.end() ? fmt::format("? {}", peer)
                                                   : fmt::format("{:.2f} {}", found->second, peer);
  }
  return {"  " + figure.title, judged.bound.contender, bound, measured, word(judged.verdict)};
}

json jsonOf(const Judged& judged) {
  json bound = {{"contender", judged.bound.contender}, {"verdict", word(judged.verdict)}};
  if (judged.bound.limit) bound["limit"] = *judged.bound.limit;
  if (judged.value) bound["value"] = *judged.value;
  if (!judged.bound.notAbove.empty()) bound["not_above"] = judged.bound.notAbove;
  if (!judged.againstPeers.empty()) bound["against_peers"] = judged.againstPeers;
  return bound;
}

json jsonOf(const Rounds& rounds, const Figure& figure) {
  constexpr const char* kUnits[] = {"seconds", "megabytes", "count"};
  constexpr const char* kAgainst[] = {"native", "own", "nothing"};
  json out = {{"figure", figure.id},
              {"title", figure.title},
              {"unit", kUnits[static_cast<int>(figure.unit)]},
              {"against", kAgainst[static_cast<int>(figure.against)]},
              {"contenders", json::object()},
              {"bounds", json::array()}};
  if (!figure.reference.empty()) out["reference"] = figure.reference;
  for (const auto& contender : rounds.contenders()) {
    const auto values = rounds.values(figure, contender);
    if (values.empty()) continue;
    json one = {{"values", values}, {"median", *median(values)}};
    if (figure.against != Against::kNothing) {
      one["references"] = rounds.references(figure, contender);
      one["ratios"] = rounds.ratios(figure, contender);
      if (const auto ratio = rounds.result(figure, contender)) one["ratio"] = *ratio;
    }
    out["contenders"][contender] = one;
  }
  for (const auto& bound : figure.bounds) {
    out["bounds"].push_back(jsonOf(rounds.judge(figure, bound)));
  }
  return out;
}

void printRows(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const bool left = i == 0;
      line += left ? fmt::format("{:<{}}  ", row[i], widths[i])
                   : fmt::format("{:>{}}  ", row[i], widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    fmt::print("{}\n", line);
  }
}

}  // namespace

void printTable(const std::string& name, const std::string& title, const Rounds& rounds) {
  fmt::print("\n{}: {} ({} rounds)\n", name, title, rounds.size());
  Row columns;
  for (const auto& contender : rounds.contenders()) {
    const auto has = [&](const Figure& figure) {
      return !rounds.values(figure, contender).empty();
    };
    if (std::any_of(rounds.figures().begin(), rounds.figures().end(), has)) {
      columns.push_back(contender);
    }
  }
  Row head = {"  figure"};
  head.insert(head.end(), columns.begin(), columns.end());
  std::vector<Row> rows = {head};
  std::vector<Row> bounds = {{"  bound", "of", "at most", "is", ""}};
  for (const auto& figure : rounds.figures()) {
    Row row = {"  " + figure.title};
    for (const auto& contender : columns) row.push_back(cell(rounds, figure, contender));
    rows.push_back(row);
    for (const auto& bound : figure.bounds) {
      bounds.push_back(judgement(figure, rounds.judge(figure, bound)));
    }
  }
  printRows(rows);
  if (bounds.size() > 1) printRows(bounds);
}

json toJson(const std::string& name, const Rounds& rounds) {
  json out = {{"workload", name}, {"rounds", rounds.size()}, {"figures", json::array()}};
  for (const auto& figure : rounds.figures()) out["figures"].push_back(jsonOf(rounds, figure));
  return out;
}

json reportOf(const Options& options, const std::vector<std::string>& said,
              std::vector<json> workloads, bool complete) {
  struct utsname system = {};
  ::uname(&system);
  return {{"version", KILNFS_VERSION},
          {"date", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)))},
          {"kernel", system.release},
          {"processors", ::sysconf(_SC_NPROCESSORS_ONLN)},
          {"size", options.sizes.name},
          {"rounds", options.rounds},
          {"daemon", options.kilnfs},
          {"daemon_options", options.daemonOptions},
          {"complete", complete},
          {"not_measured", said},
          {"workloads", std::move(workloads)}};
}

bool anyOver(const Rounds& rounds) {
  for (const auto& figure : rounds.figures()) {
    for (const auto& bound : figure.bounds) {
      if (rounds.judge(figure, bound).verdict == Verdict::kOver) return true;
    }
  }
  return false;
}

}  // namespace kilnfs::bench
