// The store's directories, with a descriptor for each, so that renaming stays inside them.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "store/base/error.h"
#include "store/base/fd.h"
#include "store/tree_root.h"

namespace kilnfs {

struct Area {
  UniqueFd fd;
  std::string path;
};

class Layout {
 public:
  /// Makes what is missing, and keeps other users out of all that is not theirs to read, or that
  /// they could change though it is saved. With `usersWorkHere` they reach work in progress by its
  /// path. See Store::create for the errors.
  static Expected<Layout> open(const std::string& root, bool usersWorkHere);

  const std::string& root() const { return root_; }
  const Area& result() const { return result_; }
  const Area& resultTmp() const { return resultTmp_; }
  const Area& cache() const { return cache_; }
  const Area& cacheTmp() const { return cacheTmp_; }
  const Area& log() const { return log_; }
  const Area& state() const { return state_; }

 private:
  std::string root_;
  Area result_, resultTmp_, cache_, cacheTmp_, log_, state_;
};

/// Whether `name` in `area` is a directory (a symbolic link is none).
/// One that can't be looked at is none.
bool isDirectory(const Area& area, const std::string& name);
/// The same for who would give up what is not there: one that can't be looked at is an error.
Expected<bool> hasDirectory(const Area& area, const std::string& name);

/// Whether a text from outside can be the name of an entry of an area, and of nothing else.
bool isEntryName(std::string_view text);

/// The names in `area`, in no order.
Expected<std::vector<std::string>> listNames(const Area& area);

/// While it lives, a directory of ours has the write permission that it lacks. If the daemon is
/// killed then, it keeps that: nobody can tell any more that it was lent.
class MadeWritable {
 public:
  MadeWritable(int dirFd, const std::string& name);
  ~MadeWritable();
  MadeWritable(const MadeWritable&) = delete;
  MadeWritable& operator=(const MadeWritable&) = delete;
  /// False: it was not ours to change, or had the permission.
  bool done() const { return done_; }

 private:
  const UniqueFd fd_;
  mode_t mode_ = 0;
  bool done_ = false;
};

/// renameat2. To be moved to another directory, one has to be writable itself: where that is what
/// is missing, and it is ours, it is lent the permission. False: errno says why.
bool moveEntry(int from, const std::string& name, int to, const std::string& newName,
               unsigned flags);

/// Renames a tree; EEXIST if there is something. `tree`, if somebody has it, follows: who opens
/// something in it waits meanwhile.
Status renameInStore(const Area& from, const std::string& name, const Area& to,
                     const std::string& newName, TreeRoot* tree = nullptr);
/// Lets two trees change places; likewise.
Status exchangeInStore(const Area& from, const std::string& name, TreeRoot* tree, const Area& to,
                       const std::string& newName, TreeRoot* other);

}  // namespace kilnfs
