#include "store/base/error.h"

#include <fmt/format.h>

#include <cstring>
#include <system_error>

namespace kilnfs {

Failure failErrno(std::string_view what) {
  const int code = errno;
  return fail(code, fmt::format("{}: {}", what, errnoText(code)));
}

std::string errnoText(int code) {
  return std::generic_category().message(code);
}

std::string textOf(const Error& error) {
  return error.message.empty() ? errnoText(error.code) : error.message;
}

std::string errnoName(int code) {
  const char* name = ::strerrorname_np(code);
  return name != nullptr && code != 0 ? name : "EIO";
}

std::string inQuotes(std::string_view bytes) {
  std::string out = "'";
  for (const char c : bytes) {
    const auto u = static_cast<unsigned char>(c);
    if (u < 0x20 || u >= 0x7f || c == '\'' || c == '\\') {
      out += fmt::format("\\x{:02x}", u);
    } else {
      out += c;
    }
  }
  return out + "'";
}

}  // namespace kilnfs
