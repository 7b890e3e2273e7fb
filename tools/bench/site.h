// Where everything of a run is: one temporary directory, with the stores, file systems and peers
// that the workloads asked for. What is made is made on demand, once, and goes when this goes.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tools/bench/kiln.h"
#include "tools/bench/options.h"
#include "tools/bench/tree.h"

namespace kilnfs::bench {

class Cloner;

enum class StoreMode { kCopy, kHardlink };

constexpr size_t kSmallCacheFiles = 300;  // of the cache `small`; `big` is as big as the base

class Site {
 public:
  static Expected<std::unique_ptr<Site>> create(const Options& options);
  Site(const Site&) = delete;
  Site& operator=(const Site&) = delete;
  ~Site();

  const Options& options() const { return options_; }
  std::string path(const std::string& below) const { return root_ + "/" + below; }

  /// The tree that everybody works on: the result `base` of the store in mode copy.
  Expected<std::string> base();
  /// A served store with the results `base` and `empty` and the caches `big` and `small`.
  Expected<Kiln*> kiln(StoreMode mode);
  /// A served store of one workload's own; `fill` makes the content of the given directory.
  Expected<std::unique_ptr<Kiln>> startKiln(const std::string& name, const std::string& options,
                                            const std::function<Status(const std::string&)>& fill);
  /// A mounted file system on a loop file. Needs root.
  Expected<std::string> loop(const std::string& type);
  /// The archive that `work` unpacks.
  Expected<std::string> archive();

  /// The peers that copy trees, as `make` makes them; it is called once.
  using Peers = std::vector<std::shared_ptr<Cloner>>;
  Expected<Peers> peers(const std::function<Expected<Peers>()>& make);

  /// A name that nothing else has.
  std::string fresh(const std::string& prefix) { return prefix + std::to_string(++count_); }
  /// Says, once, what can't be measured and why.
  void say(const std::string& line);
  const std::vector<std::string>& said() const { return said_; }

 private:
  Site(Options options, std::string root) : options_(std::move(options)), root_(std::move(root)) {}
  Status fillStore(StoreMode mode, const std::string& store);
  Expected<std::unique_ptr<Kiln>> makeKiln(StoreMode mode);

  const Options options_;
  const std::string root_;
  size_t count_ = 0;
  std::vector<std::string> said_;
  std::string base_;
  std::string archive_;
  std::map<std::string, Mounted> loops_;
  // What came of making them, once: a second try would find half a store.
  std::map<StoreMode, Expected<std::unique_ptr<Kiln>>> kilns_;
  std::optional<Peers> peers_;
};

}  // namespace kilnfs::bench
