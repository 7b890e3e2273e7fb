// The directories and files of the daemon's own making: the mount's root and what is right below
// it.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <unordered_map>

#include "fs/mount.h"
#include "fs/node.h"

namespace kilnfs {

/// An item of a listing that is made in memory.
struct ListItem {
  std::string name;
  uint64_t ino = 0;
  mode_t type = S_IFDIR;
  bool operator==(const ListItem&) const = default;
};

/// A directory with given attributes.
class OwnDirectory : public OwnNode {
 public:
  OwnDirectory(Mount& mount, mode_t mode) : mount_(mount), mode_(mode) {}
  struct stat attributes() const override {
    return mount_.ownAttributes(number(), S_IFDIR | mode_);
  }
  double attributesTimeout() const override { return kForever; }
  void readdir(Reply reply, off_t offset, size_t size, bool plus) override;

 protected:
  OwnDirectory(Mount& mount, mode_t mode, uint64_t number)
      : OwnNode(number), mount_(mount), mode_(mode) {}
  /// What it lists, without "." and "..". Called on a worker.
  virtual std::vector<ListItem> list() = 0;
  /// Answers with a node whose name may change its meaning any time.
  void answer(Reply reply, const std::shared_ptr<OwnNode>& node);

  Mount& mount_;

 private:
  // A reader goes on in the list that it began: its cookies are the list's number and an index. The
  // last few are remembered; of a reader who comes back later than that some entries may be missed.
  struct Listing {
    uint64_t number;
    std::vector<ListItem> items;
  };
  static constexpr int kIndexBits = 32;
  static constexpr size_t kRemembered = 16;
  std::shared_ptr<const Listing> remembered(uint64_t number);
  std::shared_ptr<const Listing> listNow();
  void give(Reply reply, const Listing& listing, size_t from, size_t size, bool plus);

  const mode_t mode_;
  std::mutex mutex_;
  std::deque<std::shared_ptr<const Listing>> listings_;  // guarded by mutex_
  uint64_t lastListing_ = 0;                             // guarded by mutex_
};

/// A directory whose names the kernel may keep until an event says that one has another meaning.
class EventfulDirectory : public OwnDirectory {
 public:
  ~EventfulDirectory() override { mount_.store().events().unsubscribe(subscription_); }

 protected:
  struct Stale {
    std::string name;  // empty: none
    bool gone = true;  // else it has another meaning
  };
  /// `stale` says which name an event takes away.
  EventfulDirectory(Mount& mount, mode_t mode,
                    std::function<Stale(const nlohmann::json& event)> stale);

 private:
  int subscription_;
};

/// A file whose text is made when it is opened.
class TextFile : public OwnNode {
 public:
  TextFile(Mount& mount, std::function<std::string()> text)
      : mount_(mount), text_(std::move(text)) {}
  struct stat attributes() const override {
    return mount_.ownAttributes(number(), S_IFREG | 0444);
  }
  void open(Reply reply, int flags) override;

 private:
  Mount& mount_;
  const std::function<std::string()> text_;
};

/// Nodes by a key, while somebody has them.
template <class Key, class T>
class WeakIndex {
 public:
  /// The node of `key`, made by `make` if there is none. Thread-safe.
  template <class Make>
  std::shared_ptr<T> get(const Key& key, Make make) {
    const std::lock_guard lock(mutex_);
    std::weak_ptr<T>& known = nodes_[key];
    if (auto node = known.lock()) return node;
    std::shared_ptr<T> node = make();
    known = node;
    if (nodes_.size() > pruneAt_) {
      std::erase_if(nodes_, [](const auto& item) { return item.second.expired(); });
      pruneAt_ = 64 + 2 * nodes_.size();
    }
    return node;
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::weak_ptr<T>> nodes_;  // guarded by mutex_
  size_t pruneAt_ = 64;                    // guarded by mutex_
};

std::shared_ptr<OwnNode> makeRoot(Mount& mount);
/// `ino` is what stat shows; 0: the node's own number.
std::shared_ptr<OwnNode> makeControl(Mount& mount, uint64_t ino);
std::shared_ptr<OwnNode> makeEvents(Mount& mount);
std::shared_ptr<OwnDirectory> makeResults(Mount& mount);
std::shared_ptr<OwnDirectory> makeLogs(Mount& mount);
std::shared_ptr<OwnDirectory> makeCaches(Mount& mount);
std::shared_ptr<OwnDirectory> makeLeases(Mount& mount);
std::shared_ptr<OwnDirectory> makeBuilds(Mount& mount);

/// What README says in a mount at `path`.
std::string readmeText(const std::string& path);

}  // namespace kilnfs
