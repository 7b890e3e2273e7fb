#include "tools/bench/figures.h"

#include <algorithm>

namespace kilnfs::bench {

std::optional<double> median(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::optional<double> Rounds::sample(const Round& round, const std::string& contender,
                                     const std::string& id) const {
  const auto samples = round.find(contender);
  if (samples == round.end()) return std::nullopt;
  const auto value = samples->second.values.find(id);
  if (value == samples->second.values.end()) return std::nullopt;
  return value->second;
}

std::optional<double> Rounds::reference(const Round& round, const Figure& figure,
                                        const std::string& contender) const {
  if (figure.against == Against::kNothing) return std::nullopt;
  const std::string& id = figure.reference.empty() ? figure.id : figure.reference;
  return sample(round, figure.against == Against::kNative ? kNative : contender, id);
}

std::vector<double> Rounds::values(const Figure& figure, const std::string& contender) const {
  std::vector<double> found;
  for (const auto& round : rounds_) {
    if (const auto value = sample(round, contender, figure.id)) found.push_back(*value);
  }
  return found;
}

std::vector<double> Rounds::references(const Figure& figure, const std::string& contender) const {
  std::vector<double> found;
  for (const auto& round : rounds_) {
    if (const auto value = reference(round, figure, contender)) found.push_back(*value);
  }
  return found;
}

std::vector<double> Rounds::ratios(const Figure& figure, const std::string& contender) const {
  std::vector<double> found;
  for (const auto& round : rounds_) {
    const auto value = sample(round, contender, figure.id);
    const auto other = reference(round, figure, contender);
    if (value && other && *other > 0) found.push_back(*value / *other);
  }
  return found;
}

std::optional<double> Rounds::result(const Figure& figure, const std::string& contender) const {
  return median(figure.against == Against::kNothing ? values(figure, contender)
                                                    : ratios(figure, contender));
}

Judged Rounds::judge(const Figure& figure, const Bound& bound) const {
  Judged judged;
  judged.bound = bound;
  judged.value = result(figure, bound.contender);
  if (!judged.value) return judged;
  bool over = bound.limit && *judged.value > *bound.limit;
  for (const auto& peer : bound.notAbove) {
    std::vector<double> found;
    for (const auto& round : rounds_) {
      const auto value = sample(round, bound.contender, figure.id);
      const auto other = sample(round, peer, figure.id);
      if (value && other && *other > 0) found.push_back(*value / *other);
    }
    const auto middle = median(found);
    if (!middle) continue;
    judged.againstPeers[peer] = *middle;
    over = over || *middle > 1;
  }
  // Of a bound that speaks of peers only, nothing is known where none of them was measured.
  if (bound.limit || !judged.againstPeers.empty()) {
    judged.verdict = over ? Verdict::kOver : Verdict::kPass;
  }
  return judged;
}

}  // namespace kilnfs::bench
