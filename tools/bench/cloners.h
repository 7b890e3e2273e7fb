// Who makes copies of trees: kilnfs, and what OBuilder's stores do for the same.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tools/bench/site.h"

namespace kilnfs::bench {

/// Keeps results `base` and `empty` and caches `big` and `small`. All give seconds.
class Cloner {
 public:
  virtual ~Cloner() = default;
  virtual const char* name() const = 0;
  /// Makes the result `id` by running `true` on a clone of `base`: what that takes without the
  /// command itself. Returns when nothing of it goes on in the background.
  virtual Expected<double> build(const std::string& base, const std::string& id) = 0;
  /// Deletes the result `id`, until the caller has its answer; likewise.
  virtual Expected<double> erase(const std::string& id) = 0;
  /// A job gets a copy of the cache, writes `text` to kSomeFile, and ends; the next one gets a copy
  /// and has read the text.
  virtual Expected<double> cycle(const std::string& cache, const std::string& text) = 0;
};

using Cloners = std::vector<std::shared_ptr<Cloner>>;

class KilnCloner : public Cloner {
 public:
  KilnCloner(Kiln& kiln, const char* name) : kiln_(kiln), name_(name) {}
  const char* name() const override { return name_; }
  Expected<double> build(const std::string& base, const std::string& id) override;
  Expected<double> erase(const std::string& id) override;
  Expected<double> cycle(const std::string& cache, const std::string& text) override;
  /// As cycle, by two shells that follow the cache's link.
  Expected<double> cycleOfJobs(const std::string& cache, const std::string& text);

 private:
  Kiln& kiln_;
  const char* name_;
};

/// kilnfs in both modes.
Expected<std::vector<std::shared_ptr<KilnCloner>>> makeKilnCloners(Site& site);
/// The peers that can be here. For those that can't be, says why.
Expected<Cloners> makePeerCloners(Site& site);

/// The file's content; empty where there is none.
std::string readText(const std::string& path);
/// Replaces the content of a file that is there.
Status writeText(const std::string& path, const std::string& text);

}  // namespace kilnfs::bench
