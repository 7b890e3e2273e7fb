// What is measured: figures, the samples of each round, and what the medians are worth against the
// bounds.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace kilnfs::bench {

enum class Unit { kSeconds, kMegabytes, kCount };

/// What a sample is divided by. Always a sample of the same round.
enum class Against {
  kNative,  // the native directory's
  kOwn,     // the same contender's, of another figure
  kNothing  // the figure is a value, not a ratio
};

/// A bound of one contender: at most `limit`, and not above any of `notAbove` in the same round.
struct Bound {
  std::string contender;
  std::optional<double> limit;
  std::vector<std::string> notAbove;
};

struct Figure {
  std::string id;  // "walk.find-warm"
  std::string title;
  Unit unit = Unit::kSeconds;
  Against against = Against::kNative;
  std::string reference;  // id of the figure to divide by; empty: this one
  std::vector<Bound> bounds;
};

constexpr const char* kNative = "native";

/// What a contender gave in one round: values by figure, and what must be equal for all contenders.
struct Samples {
  std::map<std::string, double> values;
  std::map<std::string, std::string> checks;
};

using Round = std::map<std::string, Samples>;  // by contender

enum class Verdict { kPass, kOver, kUnknown };

struct Judged {
  Bound bound;
  std::optional<double> value;  // the median that was held against the bound's limit
  std::map<std::string, double> againstPeers;
  Verdict verdict = Verdict::kUnknown;
};

/// The rounds of one workload. Figures are the workload's.
class Rounds {
 public:
  Rounds(std::vector<Figure> figures, std::vector<std::string> contenders)
      : figures_(std::move(figures)), contenders_(std::move(contenders)) {}
  void add(Round round) { rounds_.push_back(std::move(round)); }

  const std::vector<Figure>& figures() const { return figures_; }
  size_t size() const { return rounds_.size(); }
  /// Those that were asked to take part, in the order of the table.
  const std::vector<std::string>& contenders() const { return contenders_; }

  std::vector<double> values(const Figure& figure, const std::string& contender) const;
  /// What the contender's values are divided by: empty for a figure against nothing.
  std::vector<double> references(const Figure& figure, const std::string& contender) const;
  /// The ratios of the rounds that have both.
  std::vector<double> ratios(const Figure& figure, const std::string& contender) const;
  /// The ratio, or the value of a figure that is none; nothing if it was not measured.
  std::optional<double> result(const Figure& figure, const std::string& contender) const;
  Judged judge(const Figure& figure, const Bound& bound) const;

 private:
  std::optional<double> sample(const Round& round, const std::string& contender,
                               const std::string& id) const;
  std::optional<double> reference(const Round& round, const Figure& figure,
                                  const std::string& contender) const;

  std::vector<Figure> figures_;
  std::vector<std::string> contenders_;
  std::vector<Round> rounds_;
};

/// Nothing for an empty list.
std::optional<double> median(std::vector<double> values);

}  // namespace kilnfs::bench
