#include "store/control/words.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace kilnfs {
namespace {

bool isBlank(char c) {
  return c == ' ' || c == '\t';
}

/// One pass over the text; each function leaves `at_` behind what it took.
class Splitter {
 public:
  explicit Splitter(std::string_view text) : text_(text) {}

  Expected<std::vector<Words>> split() {
    if (const size_t nul = text_.find('\0'); nul != std::string_view::npos) {
      return fail(EINVAL, fmt::format("a NUL byte at byte {}: commands are text", nul));
    }
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '\n') {
        ++at_;
        endCommand();
        whole_ = at_;
      } else if (isBlank(c)) {
        ++at_;
      } else if (text_.substr(at_, 2) == "\\\n") {
        at_ += 2;
      } else if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (auto word = takeWord(); word) {
        words_.push_back(std::move(*word));
      } else {
        return Failure(word.error());
      }
    }
    endCommand();
    return std::move(commands_);
  }
  /// After split(), whether or not it failed.
  size_t whole() const { return whole_; }

 private:
  void endCommand() {
    if (!words_.empty()) commands_.push_back(std::move(words_));
    words_.clear();
  }

  Expected<std::string> takeWord() {
    std::string word;
    while (at_ < text_.size() && !isBlank(text_[at_]) && text_[at_] != '\n') {
      const char c = text_[at_];
      Status taken;
      if (c == '\'') {
        taken = takeSingleQuoted(word);
      } else if (c == '"') {
        taken = takeDoubleQuoted(word);
      } else if (c == '\\') {
        taken = takeEscaped(word);
      } else {
        word += c;
        ++at_;
      }
      if (!taken) return Failure(taken.error());
    }
    return word;
  }

  Status takeSingleQuoted(std::string& word) {
    const size_t end = text_.find('\'', at_ + 1);
    if (end == std::string_view::npos) return notClosed("single", at_);
    word += text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return {};
  }

  Status takeDoubleQuoted(std::string& word) {
    const size_t opened = at_++;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) {
        const char next = text_[at_ + 1];
        // Before any other character the backslash stands for itself.
        const bool special = std::string_view("\"\\$`\n").find(next) != std::string_view::npos;
        if (!special) word += '\\';
        if (next != '\n') word += next;
        at_ += 2;
      } else {
        word += text_[at_++];
      }
    }
    if (at_ >= text_.size()) return notClosed("double", opened);
    ++at_;
    return {};
  }

  Status takeEscaped(std::string& word) {
    if (at_ + 1 >= text_.size()) {
      return fail(EINVAL, fmt::format("a backslash at the end of the text ({})", place(at_)));
    }
    if (text_[at_ + 1] != '\n') word += text_[at_ + 1];
    at_ += 2;
    return {};
  }

  Failure notClosed(std::string_view kind, size_t opened) const {
    return fail(EINVAL, fmt::format("a {} quote is opened and never closed ({}); nothing of this "
                                    "write was executed",
                                    kind, place(opened)));
  }

  std::string place(size_t at) const {
    const std::string_view before = text_.substr(0, at);
    const size_t lineStart = before.rfind('\n') + 1;  // npos + 1 is 0
    return fmt::format("line {}, column {}", std::count(before.begin(), before.end(), '\n') + 1,
                       at - lineStart + 1);
  }

  const std::string_view text_;
  size_t at_ = 0;
  size_t whole_ = 0;
  Words words_;
  std::vector<Words> commands_;
};

}  // namespace

Expected<std::vector<Words>> splitCommands(std::string_view text) {
  return Splitter(text).split();
}

size_t wholeCommands(std::string_view text) {
  if (text.find('\0') != std::string_view::npos) return text.size();  // no command ever
  Splitter splitter(text);
  std::ignore = splitter.split();
  return splitter.whole();
}

std::string quoteWord(std::string_view word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_+-./,:@%=").find(c) != std::string_view::npos;
  });
  if (plain) return std::string(word);
  std::string out = "'";
  for (const char c : word) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string joinWords(const Words& words) {
  std::string out;
  for (const std::string& word : words) {
    if (!out.empty()) out += ' ';
    out += quoteWord(word);
  }
  return out;
}

}  // namespace kilnfs
