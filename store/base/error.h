// Errors are values: a POSIX errno for the kernel and a sentence for a person.
//
// Expected<T> is what a fallible function returns. The sentence names the thing that failed and,
// where it helps, says what to do; it carries no errno text (the code already says that).
#pragma once

#include <cerrno>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

namespace kilnfs {

struct Error {
  int code = EIO;       // an errno value, never 0
  std::string message;  // may be empty on hot paths, where the code says it all
};

template <class T>
using Expected = tl::expected<T, Error>;
using Status = Expected<void>;
using Failure = tl::unexpected<Error>;

/// A failed Expected of any type.
[[nodiscard]] inline Failure fail(int code, std::string message = {}) {
  return Failure(Error{code, std::move(message)});
}

/// Failure for the errno of the system call that was just made: "WHAT: No such file or directory".
/// Call it in the next statement, before anything else can change errno.
[[nodiscard]] Failure failErrno(std::string_view what);

/// The symbolic name of an errno value ("ENOENT"); "EIO" for one that has no name.
std::string errnoName(int code);

/// What an errno value says to a person: "No such file or directory".
std::string errnoText(int code);

/// The error's sentence, or what its code says where it has none.
std::string textOf(const Error& error);

/// Whether the code tells of a lack of memory, descriptors or space, and so says nothing about what
/// was asked for.
inline bool isShortage(int code) {
  return code == EMFILE || code == ENFILE || code == ENOMEM || code == ENOSPC || code == EDQUOT;
}

/// `bytes` in single quotes for messages and one-line files: what is not printable ASCII, and
/// quotes and backslashes, are escaped as \xNN, so that a hostile name stays on its line.
std::string inQuotes(std::string_view bytes);

}  // namespace kilnfs
