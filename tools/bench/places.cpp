#include "tools/bench/places.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "tools/bench/figures.h"
#include "tools/bench/step.h"

namespace kilnfs::bench {
namespace {

Argv stepIn(const std::string& directory, const Argv& args) {
  Argv argv = {selfPath(), "step"};
  argv.insert(argv.end(), args.begin(), args.end());
  if (!directory.empty()) argv.insert(argv.end(), {"--in", directory});
  return argv;
}

Expected<std::string> runStep(const std::string& directory, const Argv& args) {
  auto ran = runOk(stepIn(directory, args));
  if (!ran) return Failure(ran.error());
  return std::move(ran->output);
}

/// A plain directory: native, or of another file system.
class Directory : public Place {
 public:
  Directory(const char* name, std::string path) : name_(name), path_(std::move(path)) {}
  const char* name() const override { return name_; }
  Expected<std::string> run(const Argv& args) override { return runStep(path_, args); }

 private:
  const char* name_;
  std::string path_;
};

/// results/base, on a mount that was just made.
class Result : public Place {
 public:
  explicit Result(Kiln& kiln) : kiln_(kiln) {}
  const char* name() const override { return "result"; }
  Expected<std::string> run(const Argv& args) override {
    if (auto restarted = kiln_.restart(); !restarted) return Failure(restarted.error());
    return runStep(kiln_.mnt("results/base"), args);
  }

 private:
  Kiln& kiln_;
};

/// A lease on a cache that holds the base.
class Lease : public Place {
 public:
  explicit Lease(Kiln& kiln) : kiln_(kiln) {}
  const char* name() const override { return "lease"; }
  Expected<std::string> run(const Argv& args) override {
    auto control = kiln_.control();
    if (!control) return Failure(control.error());
    const auto lease = ask(*control, {"lease", "big"});
    if (!lease) return Failure(lease.error());
    auto output = runStep(kiln_.mnt(lease->value("path", "")), args);
    const auto released = ask(*control, {"release", lease->value("lease", ""), "--discard"});
    if (output && !released) return Failure(released.error());
    return output;
  }

 private:
  Kiln& kiln_;
};

/// A build on the base. Its command fails on purpose, so that nothing is stored.
class Build : public Place {
 public:
  Build(Site& site, Kiln& kiln) : site_(site), kiln_(kiln) {}
  const char* name() const override { return "build"; }
  Expected<std::string> run(const Argv& args) override {
    const std::string id = site_.fresh("step");
    Words words = {"build", id, "--base", "base", "--wait", "--"};
    const Argv argv = stepIn("", args);
    words.insert(words.end(), argv.begin(), argv.end());
    words.emplace_back("--fail");
    auto control = kiln_.control();
    if (!control) return Failure(control.error());
    const auto answer = control->command(words);
    if (!answer) return Failure(answer.error());
    const std::string log = kiln_.mnt("logs/" + id);
    std::ifstream in(log, std::ios::binary);
    std::string output{std::istreambuf_iterator<char>(in), {}};
    ::unlink(log.c_str());
    if (answer->json.value("exit", 0) != kMeasured) {
      return fail(EIO, failureText(*answer) + ": " + output);
    }
    return output;
  }

 private:
  Site& site_;
  Kiln& kiln_;
};

/// The kernel's overlayfs over the base.
class Overlay : public Place {
 public:
  Overlay(Site& site, std::string base) : base_(std::move(base)), dir_(site.path("overlay")) {}
  const char* name() const override { return "overlay"; }
  Status prepare() {
    if (auto made = makeEmpty({dir_}); !made) return made;
    const auto tried = mount();
    return tried ? Status() : Failure(tried.error());
  }
  Expected<std::string> run(const Argv& args) override {
    const auto mounted = mount();
    if (!mounted) return Failure(mounted.error());
    return runStep(mounted->path(), args);
  }

 private:
  Expected<Mounted> mount() {
    if (auto made = makeEmpty({dir_ + "/upper", dir_ + "/work", dir_ + "/merged"}); !made) {
      return Failure(made.error());
    }
    return Mounted::overlay(base_, dir_ + "/upper", dir_ + "/work", dir_ + "/merged");
  }

  const std::string base_;
  const std::string dir_;
};

class FuseOverlay : public Place {
 public:
  FuseOverlay(Site& site, std::string base)
      : base_(std::move(base)), dir_(site.path("fuse-overlayfs")) {}
  const char* name() const override { return "fuse-overlayfs"; }
  Status prepare() {
    if (auto made = makeEmpty({dir_}); !made) return made;
    const auto tried = serve();
    return tried ? Status() : Failure(tried.error());
  }
  Expected<std::string> run(const Argv& args) override {
    const auto served = serve();
    if (!served) return Failure(served.error());
    return runStep(served->path(), args);
  }

 private:
  Expected<Served> serve() {
    const std::string at = dir_ + "/merged";
    if (auto made = makeEmpty({dir_ + "/upper", dir_ + "/work", at}); !made) {
      return Failure(made.error());
    }
    const std::string options =
        fmt::format("lowerdir={},upperdir={}/upper,workdir={}/work", base_, dir_, dir_);
    return Served::start({"fuse-overlayfs", "-f", "-o", options, at}, at, dir_ + "/log");
  }

  const std::string base_;
  const std::string dir_;
};

using Places = std::vector<std::shared_ptr<Place>>;

template <class Peer>
void addPeer(Site& site, Places& places, std::shared_ptr<Peer> peer) {
  if (const auto prepared = peer->prepare(); !prepared) {
    site.say(fmt::format("{} can't be measured: {}", peer->name(), prepared.error().message));
    return;
  }
  places.push_back(std::move(peer));
}

Status addBtrfs(Site& site, Places& places, const std::string& base, Use use) {
  if (::geteuid() != 0 || !installed("mkfs.btrfs")) return {};
  const auto at = site.loop("btrfs");
  if (!at) {
    site.say("btrfs can't be measured: " + at.error().message);
    return {};
  }
  const std::string tree = *at + (use == Use::kReads ? "/read" : "/written");
  struct stat st = {};
  if (::stat(tree.c_str(), &st) != 0) {
    const auto copied =
        use == Use::kReads ? runOk({"cp", "-a", base, tree}) : runOk({"mkdir", tree});
    if (!copied) return Failure(copied.error());
  }
  places.push_back(std::make_shared<Directory>("btrfs", tree));
  return {};
}

}  // namespace

Expected<Places> makePlaces(Site& site, Use use) {
  const auto base = site.base();
  if (!base) return Failure(base.error());
  const auto kiln = site.kiln(StoreMode::kCopy);
  if (!kiln) return Failure(kiln.error());
  const std::string written = site.path("native");
  if (auto made = makeEmpty({written}); !made) return Failure(made.error());

  Places places;
  places.push_back(std::make_shared<Directory>(kNative, use == Use::kReads ? *base : written));
  if (use == Use::kReads) places.push_back(std::make_shared<Result>(**kiln));
  places.push_back(std::make_shared<Lease>(**kiln));
  places.push_back(std::make_shared<Build>(site, **kiln));
  if (::geteuid() != 0) site.say("not root: overlay, btrfs and reflink can't be measured");
  if (::geteuid() == 0) addPeer(site, places, std::make_shared<Overlay>(site, *base));
  addPeer(site, places, std::make_shared<FuseOverlay>(site, *base));
  if (auto added = addBtrfs(site, places, *base, use); !added) return Failure(added.error());
  return places;
}

}  // namespace kilnfs::bench
