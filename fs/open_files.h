// How the kernel has the files of trees open. It wants all opens of an inode at a time to be of one
// kind: through its page cache, or passed through to one file on disk, registered with it. The
// first open decides; the registered file is let go of after the last one was released.
// Thread-safe.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace kilnfs {

class OpenFiles {
 public:
  /// Counts an open, before it is answered, and gives the number of the file to pass it through to;
  /// 0: through the page cache. `first` is called, if not null, where nobody else has the file
  /// open: it registers the file and gives its number (0: failed), or prepares the page cache and
  /// gives 0. Who opens the file meanwhile waits. `mappable`: who opens it may map it for writing.
  int begin(uint64_t node, bool mappable, const std::function<int()>& first);

  /// To be called between changing a file that may not be open and saying so: waits for a `first`
  /// under way, which may give the kernel what it has read before.
  void settle(uint64_t node);

  /// Takes an open back. True: what is passed through may have been mapped for writing, and be so
  /// still, by whoever opened the file for that, though others have it open.
  bool end(uint64_t node);

  /// Whether the file may change through a mapping that we don't see.
  bool mappable(uint64_t node) const;

  /// The registered files that are in use no more; the caller lets the kernel know.
  std::vector<int> takeUnused();

 private:
  struct State {
    uint32_t opens = 0;
    bool preparing = false;  // `first` is under way
    bool mappable = false;
    int backing = 0;
  };
  struct Shard {
    mutable std::mutex mutex;
    std::condition_variable prepared;
    std::unordered_map<uint64_t, State> states;  // guarded by mutex
  };
  using Lock = std::unique_lock<std::mutex>;
  static constexpr size_t kShards = 16;
  Shard& shard(uint64_t node) { return shards_[node % kShards]; }
  const Shard& shard(uint64_t node) const { return shards_[node % kShards]; }
  static void waitPrepared(Shard& shard, uint64_t node, Lock& lock);
  static void prepare(Shard& shard, uint64_t node, Lock& lock, const std::function<int()>& first);

  std::array<Shard, kShards> shards_;
  std::mutex unusedMutex_;
  std::vector<int> unused_;  // guarded by unusedMutex_
};

}  // namespace kilnfs
