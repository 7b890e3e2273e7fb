// The text that waits to be read from one open control file, and where in the file it is.
//
// A file has one offset for reading and writing, but answers are not where commands were written.
// So after a write the text is both where the write ended (where a sequential reader is: a shell's
// read, cat) and at 0 (where one that seeks back is). The first read after a write shows which;
// that one's offsets then count from there. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kilnfs {

class Answers {
 public:
  static constexpr size_t kKept = 1 << 20;  // unread text beyond this is dropped, oldest line first

  /// A write begins at `offset`. Forgets what the reader is done with: what it has read, or,
  /// where it stepped back (shells read a block and seek back to the end of the line), what is
  /// before the place that it stepped back to.
  void beginWrite(uint64_t offset);
  /// The answer of one command, with its newline.
  void add(std::string_view line);
  /// The file's offset after the write: its end, or where it began if it failed.
  void endWrite(uint64_t offset) { end_ = offset; }

  /// Where in the text a read at `offset` is; may be behind its end.
  uint64_t place(uint64_t offset);
  /// At most `size` bytes from `place`, and remembers that they were read.
  std::string read(uint64_t place, size_t size);

  size_t size() const { return text_.size(); }
  bool written() const { return written_; }
  /// Forgets all text.
  void clear();

 private:
  std::string text_;
  bool written_ = false;          // there was a write
  uint64_t end_ = 0;              // of the last write
  std::optional<uint64_t> base_;  // the file's offset of the text's first byte, once known
  uint64_t readUpTo_ = 0;         // in the text
};

}  // namespace kilnfs
