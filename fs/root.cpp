#include <algorithm>

#include "fs/own_nodes.h"

namespace kilnfs {
namespace {

class Root : public OwnDirectory {
 public:
  explicit Root(Mount& mount) : OwnDirectory(mount, 0755, 1) {
    const std::string path = mount.options().mountpoint;
    Control& control = mount.control();
    add("README", std::make_shared<TextFile>(mount, [path] { return readmeText(path); }));
    add("control", makeControl(mount, 0));
    add("errors", std::make_shared<TextFile>(mount, [&control] { return control.errors(); }));
    add("events", makeEvents(mount));
    add("metrics", std::make_shared<TextFile>(mount, [&control] { return control.metrics(); }));
    add("results", makeResults(mount));
    add("logs", makeLogs(mount));
    add("caches", makeCaches(mount));
    add("leases", makeLeases(mount));
    add("builds", makeBuilds(mount));
  }

  // Not for long: of the mount of a daemon that has died, stat must fail, as scripts expect that
  // wait for the next one.
  double attributesTimeout() const override { return 0.01; }

  void lookup(Reply reply, const std::string& name) override {
    const auto it = std::find_if(children_.begin(), children_.end(),
                                 [&](const auto& child) { return child.name == name; });
    if (it == children_.end()) return reply.noEntry(kForever);
    // The kernel holds an inode's lock while a write to it lasts, and a write to `control` may wait
    // for a build. So each look-up gives another node: those who open the file don't share a lock.
    const bool fresh = name == "control";
    const auto node = fresh ? makeControl(mount_, it->node->number()) : it->node;
    mount_.answerEntry(std::move(reply), NodeRef(node), node->attributes(), fresh ? 0 : kForever,
                       node->attributesTimeout());
  }

 protected:
  std::vector<ListItem> list() override {
    std::vector<ListItem> items;
    for (const Child& child : children_) {
      items.push_back(
          {child.name, child.node->number(), child.node->attributes().st_mode & S_IFMT});
    }
    return items;
  }

 private:
  struct Child {
    std::string name;
    std::shared_ptr<OwnNode> node;
  };
  void add(std::string name, std::shared_ptr<OwnNode> node) {
    children_.push_back({std::move(name), std::move(node)});
  }

  std::vector<Child> children_;
};

}  // namespace

std::shared_ptr<OwnNode> makeRoot(Mount& mount) {
  return std::make_shared<Root>(mount);
}

std::string readmeText(const std::string& path) {
  return "kilnfs: a build store as files, mounted at " + path +
         R"(

  results/<id>/     what a build left; read-only. rmdir deletes one
  logs/<id>         its log; tail -f follows a build that is running. rm deletes one
  caches/<name>     follow this link to lease a private, writable copy of a cache;
                    it is published when your job has ended. rm deletes the cache
  leases/           the leased copies. rmdir releases one now
  builds/<id>/      the directory of a build that is running. rmdir cancels it
  control           write commands, read the answers of the same open file;
                    read it without writing for help
  errors            the last commands that were refused or failed, and why
  events            JSON lines: each change of a build, lease, cache or result
  metrics           figures for Prometheus

Examples:

  echo "build hello --wait -c 'echo hi > greeting'" > control && cat results/hello/greeting
  CCACHE_DIR=)" +
         path + R"(/caches/ccache make
  (echo status >&3; cat <&3) 3<>control
)";
}

}  // namespace kilnfs
