// Random file operations, done alike to two trees whose answers are then compared: a native
// directory says what is right.
//
// A Side is one of the trees, worked on by one thread. An Operation is only numbers, so that a seed
// stands for a whole sequence. Names are few and nest, so that operations meet: most of them fail,
// and with which error matters as much as what succeeds.
#pragma once

#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "store/base/fd.h"

namespace kilnfs::testing {

enum class Op {
  create,
  open,
  close,
  mkdir,
  rmdir,
  unlink,
  rename,
  link,
  symlink,
  mknod,
  chmod,
  chown,
  truncate,
  times,
  setxattr,
  removexattr,
  getxattr,
  list,
  readlink,
  writeFile,
  readFile,
  pwrite,
  pread,
  append,
  ftruncate,
  fchmod,
  fallocate,
  map,
  copyRange,
  holes,
  count,
};

struct Operation {
  Op op = Op::create;
  unsigned user = 0;  // 0: root
  std::string path, other;
  unsigned slot = 0, slot2 = 0;
  unsigned flags = 0;  // anything: each operation makes of it what it can use
  unsigned offset = 0, size = 0;
  std::string text() const;
};

/// The next of a sequence.
Operation randomOperation(std::mt19937& random);

/// What an operation said and changed, as text: equal for both trees, or one is wrong.
class Side {
 public:
  /// `directory` is the tree, or the part of it that this Side has for itself. `changeTimes`:
  /// whether it is looked at which times of change an operation moves.
  explicit Side(const std::string& directory, bool changeTimes = true);

  std::string run(const Operation& operation);
  /// Every name with its attributes, links and content.
  std::string wholeTree();
  /// Closes what is open.
  void closeAll();

 private:
  struct Seen {
    std::string path;
    bool there = false;
    struct stat st = {};
  };
  std::string apply(const Operation& operation);
  std::string named(const Operation& operation);
  std::string attribute(const Operation& operation);
  std::string data(const Operation& operation);
  std::string content(const Operation& operation);
  std::string listing(const std::string& path);
  std::string mapped(const Operation& operation);
  std::vector<Seen> look(const Operation& operation) const;
  std::string describe(const Seen& before, const Seen& after);
  std::string identity(const struct stat& st);
  void walk(const std::string& path, std::string& out);

  const UniqueFd root_;
  const bool changeTimes_;
  std::array<UniqueFd, 6> slots_;
  // Inode numbers differ between trees, and are used again: they are counted in the order in which
  // one operation met them.
  std::map<uint64_t, size_t> numbers_;
};

}  // namespace kilnfs::testing
