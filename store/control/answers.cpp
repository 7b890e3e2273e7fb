#include "store/control/answers.h"

#include <algorithm>

namespace kilnfs {

void Answers::beginWrite(uint64_t offset) {
  written_ = true;
  if (!base_) return;  // nothing was read since the last write
  uint64_t consumed = readUpTo_;
  const bool sequential = *base_ != 0;
  if (sequential && offset >= *base_) consumed = offset - *base_;
  if (!sequential && offset != 0) consumed = offset;
  text_.erase(0, std::min<uint64_t>(consumed, text_.size()));
  base_.reset();
  readUpTo_ = 0;
}

void Answers::add(std::string_view line) {
  text_ += line;
  // Never under a reader: its offsets count from the first byte.
  while (!base_ && text_.size() > kKept && text_.size() > line.size()) {
    text_.erase(0, std::min(text_.find('\n') + 1, text_.size() - line.size()));
  }
}

uint64_t Answers::place(uint64_t offset) {
  if (!base_) base_ = offset >= end_ ? end_ : 0;
  if (offset < *base_) base_ = 0;
  return offset - *base_;
}

std::string Answers::read(uint64_t place, size_t size) {
  if (place >= text_.size()) return {};
  std::string out = text_.substr(place, size);
  readUpTo_ = std::max<uint64_t>(readUpTo_, place + out.size());
  return out;
}

void Answers::clear() {
  text_.clear();
  base_.reset();
  readUpTo_ = 0;
}

}  // namespace kilnfs
