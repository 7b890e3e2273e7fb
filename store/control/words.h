// Words as a POSIX shell splits and quotes them, without its expansions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "store/base/error.h"

namespace kilnfs {

using Words = std::vector<std::string>;

/// The commands in `text`: one a line, empty lines and comments left out. Single quotes, double
/// quotes, backslash and "#" at the start of a word mean what they mean to a shell; quotes may span
/// lines, a backslash before a newline joins two. "$", "`", "*" and ";" are ordinary characters.
/// EINVAL: a quote that is not closed (saying where it was opened), a backslash at the very end, or
/// a NUL byte; then there are no commands at all.
Expected<std::vector<Words>> splitCommands(std::string_view text);

/// How many bytes of `text` are whole commands: up to the end of the last line that ends one. All
/// of what can't become commands, whatever follows.
size_t wholeCommands(std::string_view text);

/// `word` so that splitCommands, or a shell, gives it back. Unchanged where nothing needs quoting.
std::string quoteWord(std::string_view word);

/// The words of one command, quoted, with spaces between.
std::string joinWords(const Words& words);

}  // namespace kilnfs
