#include "tools/bench/site.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cstdio>

namespace kilnfs::bench {
namespace {

Status makeDirectories(const std::vector<std::string>& paths) {
  for (const auto& path : paths) {
    if (::mkdir(path.c_str(), 0755) != 0) return failErrno(path);
  }
  return {};
}

Status copyTree(const std::string& from, const std::string& to) {
  const auto copied = runOk({"cp", "-a", from, to});
  if (!copied) return Failure(copied.error());
  return {};
}

TreeShape baseShape(const Sizes& sizes) {
  return {sizes.files, sizes.directories, sizes.medianBytes, sizes.bigFiles, sizes.bigBytes, 1};
}

// Jobs: the most that a workload runs at a time.
constexpr const char* kDaemonOptions = "jobs=10";

}  // namespace

Expected<std::unique_ptr<Site>> Site::create(const Options& options) {
  std::string root = options.dir + "/kiln-bench.XXXXXX";
  if (::mkdtemp(root.data()) == nullptr) return failErrno(root);
  if (::chmod(root.c_str(), 0755) != 0) return failErrno(root);
  char* real = ::realpath(root.c_str(), nullptr);  // as the kernel will list our mounts
  if (real == nullptr) return failErrno(root);
  root = real;
  ::free(real);
  return std::unique_ptr<Site>(new Site(options, root));
}

Site::~Site() {
  peers_.reset();
  kilns_.clear();
  loops_.clear();
  unmountBelow(root_);
  if (const auto gone = removeAll(root_); !gone) {
    fmt::print(stderr, "kiln-bench: {} is left: {}\n", root_, gone.error().message);
  }
}

Expected<Site::Peers> Site::peers(const std::function<Expected<Peers>()>& make) {
  if (!peers_) {
    auto made = make();
    if (!made) return made;
    peers_ = std::move(*made);
  }
  return *peers_;
}

void Site::say(const std::string& line) {
  if (std::find(said_.begin(), said_.end(), line) != said_.end()) return;
  said_.push_back(line);
  fmt::print("! {}\n", line);
}

Expected<std::string> Site::base() {
  if (!base_.empty()) return base_;
  const std::string store = path("store-copy");
  if (auto made = makeDirectories({store, store + "/result"}); !made) {
    return Failure(made.error());
  }
  const auto made = makeTree(store + "/result/base", baseShape(options_.sizes));
  if (!made) return Failure(made.error());
  base_ = store + "/result/base";
  return base_;
}

Status Site::fillStore(StoreMode mode, const std::string& store) {
  const auto tree = base();
  if (!tree) return Failure(tree.error());
  if (mode == StoreMode::kHardlink) {
    if (auto made = makeDirectories({store, store + "/result"}); !made) return made;
    if (auto copied = copyTree(*tree, store + "/result/base"); !copied) return copied;
  }
  if (auto made = makeDirectories({store + "/result/empty", store + "/cache"}); !made) return made;
  if (auto copied = copyTree(*tree, store + "/cache/big"); !copied) return copied;
  return makeTree(store + "/cache/small",
                  {kSmallCacheFiles, kSmallCacheFiles / 10, options_.sizes.medianBytes, 0, 0, 2});
}

Expected<std::unique_ptr<Kiln>> Site::makeKiln(StoreMode mode) {
  const std::string name = mode == StoreMode::kCopy ? "copy" : "hardlink";
  if (auto made = fillStore(mode, path("store-" + name)); !made) return Failure(made.error());
  return startKiln(name, "mode=" + name, nullptr);
}

Expected<Kiln*> Site::kiln(StoreMode mode) {
  auto found = kilns_.find(mode);
  if (found == kilns_.end()) found = kilns_.emplace(mode, makeKiln(mode)).first;
  if (!found->second) return Failure(found->second.error());
  return found->second->get();
}

Expected<std::unique_ptr<Kiln>> Site::startKiln(
    const std::string& name, const std::string& options,
    const std::function<Status(const std::string&)>& fill) {
  Kiln::Setup setup;
  setup.program = options_.kilnfs;
  setup.store = path("store-" + name);
  setup.mnt = path("mnt-" + name);
  setup.log = path("log-" + name);
  setup.options = fmt::format("{},{}", kDaemonOptions, options);
  if (!options_.daemonOptions.empty()) setup.options += "," + options_.daemonOptions;
  if (auto made = makeDirectories({setup.mnt}); !made) return Failure(made.error());
  if (fill) {
    if (auto made = makeDirectories({setup.store}); !made) return Failure(made.error());
    if (auto filled = fill(setup.store); !filled) return Failure(filled.error());
  }
  return Kiln::start(std::move(setup));
}

Expected<std::string> Site::loop(const std::string& type) {
  const auto found = loops_.find(type);
  if (found != loops_.end()) return found->second.path();
  const std::string at = path("loop-" + type);
  if (auto made = makeDirectories({at}); !made) return Failure(made.error());
  constexpr size_t kBytes = size_t{12} << 30;  // sparse
  auto mounted = Mounted::loop(type, path(type + ".img"), kBytes, at);
  if (!mounted) return Failure(mounted.error());
  loops_.emplace(type, std::move(*mounted));
  return at;
}

Expected<std::string> Site::archive() {
  if (!archive_.empty()) return archive_;
  const std::string from = path("archived");
  const auto& sizes = options_.sizes;
  auto made =
      makeTree(from, {sizes.archiveFiles, sizes.archiveFiles / 10 + 1, sizes.medianBytes, 0, 0, 3});
  if (made) made = makeProgram(from, sizes.sources);
  if (!made) return Failure(made.error());
  const std::string to = path("archive.tar");
  if (auto packed = runOk({"tar", "cf", to, "-C", from, "."}); !packed) {
    return Failure(packed.error());
  }
  archive_ = to;
  return archive_;
}

}  // namespace kilnfs::bench
