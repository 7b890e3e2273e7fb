// What OBuilder's stores do, with the commands that they run for it.
#include <fmt/format.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tools/bench/cloners.h"

namespace kilnfs::bench {
namespace {

/// The parts that are the same for all: a clone is made, used, and committed or published.
class PeerCloner : public Cloner {
 public:
  PeerCloner(const char* name, std::string root) : name_(name), root_(std::move(root)) {}
  const char* name() const override { return name_; }

  Expected<double> build(const std::string& base, const std::string& id) override {
    const Stopwatch watch;
    const auto directory = clone(at("result/" + base));
    if (!directory) return Failure(directory.error());
    const auto ran = runOk({"true"});
    if (!ran) return Failure(ran.error());
    if (auto done = commit(at("result/" + base), at("result/" + id)); !done) {
      return Failure(done.error());
    }
    return watch.seconds() - ran->seconds;
  }

  Expected<double> erase(const std::string& id) override {
    const Stopwatch watch;
    if (auto gone = destroy(at("result/" + id)); !gone) return Failure(gone.error());
    return watch.seconds();
  }

  Expected<double> cycle(const std::string& cache, const std::string& text) override {
    const std::string master = at("cache/" + cache);
    const Stopwatch watch;
    auto directory = clone(master);
    if (!directory) return Failure(directory.error());
    if (auto done = writeText(*directory + "/" + kSomeFile, text); !done) {
      return Failure(done.error());
    }
    if (auto done = publish(master); !done) return Failure(done.error());
    directory = clone(master);
    if (!directory) return Failure(directory.error());
    const std::string seen = readText(*directory + "/" + kSomeFile);
    const double seconds = watch.seconds();
    if (seen != text) return fail(EIO, "the next job does not see what was published");
    if (auto done = discard(); !done) return Failure(done.error());
    return seconds;
  }

  /// Makes the results and caches. Once, before everything else.
  virtual Status fill(Site& site) {
    const auto base = site.base();
    if (!base) return Failure(base.error());
    auto done = all({{"mkdir", "-p", at("result"), at("cache"), at("tmp")}});
    for (const char* tree : {"result/base", "result/empty", "cache/big", "cache/small"}) {
      if (done) done = makeTop(at(tree));
    }
    for (const char* tree : {"result/base", "cache/big"}) {
      if (done) done = all({{"cp", "-a", *base + "/.", at(tree)}});
    }
    if (!done) return done;
    const std::string small = at("cache/small");
    const std::string made = at("tmp/small");
    done = makeTree(
        made, {kSmallCacheFiles, kSmallCacheFiles / 10, site.options().sizes.medianBytes, 0, 0, 2});
    return done ? all({{"cp", "-a", made + "/.", small}, {"rm", "-rf", made}}) : done;
  }

 protected:
  /// A writable copy of a tree; there is one at a time. Where it is.
  virtual Expected<std::string> clone(const std::string& tree) = 0;
  /// Makes the copy a result.
  virtual Status commit(const std::string& base, const std::string& result) = 0;
  /// Makes the copy the new content of the cache.
  virtual Status publish(const std::string& master) = 0;
  virtual Status discard() { return destroy(tmp()); }
  virtual Status destroy(const std::string& tree) { return all({{"rm", "-rf", tree}}); }
  /// An empty directory, or what stands for one.
  virtual Status makeTop(const std::string& path) { return all({{"mkdir", path}}); }

  std::string at(const std::string& below) const { return root_ + "/" + below; }
  std::string tmp() const { return at("tmp/clone"); }
  static Status all(const std::vector<Argv>& commands) {
    for (const auto& argv : commands) {
      if (auto ran = runOk(argv); !ran) return Failure(ran.error());
    }
    return {};
  }

 private:
  const char* name_;
  const std::string root_;
};

class OverlayCloner : public PeerCloner {
 public:
  using PeerCloner::PeerCloner;
  ~OverlayCloner() override { ::umount2(at("tmp/merged").c_str(), MNT_DETACH); }

 protected:
  Expected<std::string> clone(const std::string& tree) override {
    const std::string options =
        fmt::format("-olowerdir={},upperdir={},workdir={}", tree, tmp(), at("tmp/work"));
    const auto done = all({{"mkdir", "-p", tmp(), at("tmp/work"), at("tmp/merged")},
                           {"mount", "-t", "overlay", "overlay", options, at("tmp/merged")}});
    if (!done) return Failure(done.error());
    return at("tmp/merged");
  }
  Status commit(const std::string& /*base*/, const std::string& result) override {
    return all({{"umount", at("tmp/merged")},
                {"mv", tmp(), result},
                {"rm", "-rf", at("tmp/merged"), at("tmp/work")}});
  }
  Status publish(const std::string& master) override {
    return all({{"umount", at("tmp/merged")},
                {"cp", "-plRduTf", tmp(), master},
                {"rm", "-rf", tmp(), at("tmp/work"), at("tmp/merged")}});
  }
  Status discard() override {
    return all(
        {{"umount", at("tmp/merged")}, {"rm", "-rf", tmp(), at("tmp/work"), at("tmp/merged")}});
  }
};

class BtrfsCloner : public PeerCloner {
 public:
  using PeerCloner::PeerCloner;

 protected:
  Expected<std::string> clone(const std::string& tree) override {
    const auto done = all({{"btrfs", "subvolume", "snapshot", "--", tree, tmp()}});
    if (!done) return Failure(done.error());
    return tmp();
  }
  Status commit(const std::string& /*base*/, const std::string& result) override {
    return all({{"btrfs", "subvolume", "snapshot", "-r", "--", tmp(), result},
                {"btrfs", "subvolume", "delete", "--", tmp()}});
  }
  Status publish(const std::string& master) override {
    return all({{"btrfs", "subvolume", "delete", "--", master},
                {"btrfs", "subvolume", "snapshot", "-r", "--", tmp(), master},
                {"btrfs", "subvolume", "delete", "--", tmp()}});
  }
  Status destroy(const std::string& tree) override {
    return all({{"btrfs", "subvolume", "delete", "--", tree}});
  }
  Status makeTop(const std::string& path) override {
    return all({{"btrfs", "subvolume", "create", "--", path}});
  }
};

/// Copies by a command, and renames.
class CopyCloner : public PeerCloner {
 public:
  CopyCloner(const char* name, std::string root, Argv copy)
      : PeerCloner(name, std::move(root)), copy_(std::move(copy)) {}

 protected:
  Expected<std::string> clone(const std::string& tree) override {
    const auto done = all({{"mkdir", tmp()}, copying(tree)});
    if (!done) return Failure(done.error());
    return tmp();
  }
  Status commit(const std::string& /*base*/, const std::string& result) override {
    return all({{"mv", tmp(), result}});
  }
  Status publish(const std::string& master) override {
    return all({{"rm", "-r", master}, {"mv", tmp(), master}});
  }

 private:
  Argv copying(const std::string& tree) const {
    Argv argv = copy_;
    argv.insert(argv.end(), {tree + (copy_[0] == "cp" ? "/." : "/"), tmp()});
    return argv;
  }
  const Argv copy_;
};

/// OBuilder's mode hardlink: what did not change is linked to the base after the build.
class LinkCloner : public CopyCloner {
 public:
  using CopyCloner::CopyCloner;

 protected:
  Status commit(const std::string& base, const std::string& result) override {
    return all({{"mkdir", result},
                {"rsync", "-aHq", "--checksum", "--link-dest=" + base, tmp() + "/", result},
                {"rm", "-r", tmp()}});
  }
};

void addPeer(Site& site, Cloners& peers, std::shared_ptr<PeerCloner> peer) {
  if (const auto filled = peer->fill(site); !filled) {
    site.say(fmt::format("{} can't be measured: {}", peer->name(), filled.error().message));
    return;
  }
  peers.push_back(std::move(peer));
}

template <class Peer, class... Args>
void addOnLoop(Site& site, Cloners& peers, const std::string& type, const char* name,
               const Args&... args) {
  const auto loop = site.loop(type);
  if (!loop) {
    site.say(fmt::format("{} can't be measured: {}", name, loop.error().message));
    return;
  }
  addPeer(site, peers, std::make_shared<Peer>(name, *loop + "/cloner", args...));
}

}  // namespace

Expected<Cloners> makePeerCloners(Site& site) {
  Cloners peers;
  const Argv rsync = {"rsync", "-aHq"};
  if (::geteuid() != 0) {
    site.say("not root: overlay, btrfs and reflink can't be measured");
  } else {
    addPeer(site, peers, std::make_shared<OverlayCloner>("overlay", site.path("cloner-overlay")));
    addOnLoop<BtrfsCloner>(site, peers, "btrfs", "btrfs");
    addOnLoop<CopyCloner>(site, peers, "xfs", "reflink", Argv{"cp", "-a", "--reflink=always"});
  }
  addPeer(site, peers,
          std::make_shared<CopyCloner>("rsync-copy", site.path("cloner-rsync"), rsync));
  addPeer(site, peers, std::make_shared<LinkCloner>("rsync-link", site.path("cloner-link"), rsync));
  return peers;
}

}  // namespace kilnfs::bench
