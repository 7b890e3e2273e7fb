// Deletion in the background: a tree is renamed into the trash at once, and freed by a thread.
// The trash is in result-tmp/, under names that no id can have, so that a crash leaves it where
// the next start (OBuilder's or ours) finds and clears it. Thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "store/layout.h"
#include "store/tree_root.h"

namespace kilnfs {

class Trash {
 public:
  /// `bin` outlives the trash.
  explicit Trash(const Area& bin);
  /// Waits until all is deleted, or has been tried once more.
  ~Trash();

  /// Renames `name` of `from` away and queues it. `tree`, if any, is told where it is now, so that
  /// those who have it open can go on. ENOENT: it was not there.
  Status take(const Area& from, const std::string& name, TreeRoot* tree = nullptr);
  /// Queues what is in the bin already, under whatever name.
  void adopt(const std::string& name);

  size_t pending() const;
  /// Blocks until what was queued so far is deleted.
  void wait();
  /// The same, and tries again what could not be deleted. Gives the first error of that.
  Status drain();

 private:
  void threadMain();
  void tryAgain();  // with mutex_ held

  const Area& bin_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::deque<std::string> queue_;   // guarded by mutex_, as what follows
  std::deque<std::string> failed_;  // could not be deleted, which is tried again
  bool busy_ = false;
  bool stopping_ = false;
  unsigned next_ = 1;
  Error error_{0, {}};
  std::thread thread_;  // last: it uses the others
};

}  // namespace kilnfs
