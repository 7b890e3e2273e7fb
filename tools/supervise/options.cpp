#include "tools/supervise/options.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>

namespace kilnfs::supervise {
namespace {

bool toNumber(const std::string& text, unsigned long& value) {
  if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos) return false;
  errno = 0;
  value = std::strtoul(text.c_str(), nullptr, 10);
  return errno == 0 && value <= 0xffffffffUL;
}

bool toGroups(const std::string& text, std::vector<gid_t>& groups) {
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    unsigned long gid = 0;
    if (!toNumber(text.substr(at, comma - at), gid)) return false;
    groups.push_back(static_cast<gid_t>(gid));
    at = comma + 1;
  }
  return true;
}

bool readWords(int fd, std::vector<std::string>& words) {
  std::string all;
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    if (n == 0) break;
    all.append(buffer, static_cast<size_t>(n));
  }
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find('\0', at), all.size());
    words.push_back(all.substr(at, end - at));
    at = end + 1;
  }
  return true;
}

/// One option with its value or values; false if it is unknown or malformed.
bool takeOption(const std::string& name, const std::string& value, Options& options) {
  unsigned long number = 0;
  if (name == "--dir") {
    options.dir = value;
  } else if (name == "--below") {
    options.below = value;
  } else if (name == "--plain") {
    options.plain = value;
  } else if (name == "--bind") {
    options.bind = value;
  } else if (name == "--env") {
    options.env.push_back(value);
  } else if (name == "--groups") {
    return toGroups(value, options.groups);
  } else if (!toNumber(value, number)) {
    return false;
  } else if (name == "--uid") {
    options.uid = static_cast<uid_t>(number);
    options.changeUser = true;
  } else if (name == "--gid") {
    options.gid = static_cast<gid_t>(number);
  } else if (name == "--kill-grace") {
    options.graceMillis = static_cast<int>(std::min(number, 1000000000UL));
  } else if (name == "--namespace-fd") {
    options.namespaceFd = static_cast<int>(number);
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool readOptions(int fd, Options& options, std::string& problem) {
  std::vector<std::string> args;
  if (!readWords(fd, args)) {
    problem = "the command can't be read";
    return false;
  }
  size_t i = 0;
  for (; i < args.size() && args[i] != "--"; i += 2) {
    const bool link = args[i] == "--link";
    if (i + (link ? 2 : 1) >= args.size()) {
      problem = "no value for " + args[i];
      return false;
    }
    if (link) {
      options.links.emplace_back(args[i + 1], args[i + 2]);
      ++i;
    } else if (!takeOption(args[i], args[i + 1], options)) {
      problem = "can't understand " + args[i] + " " + args[i + 1];
      return false;
    }
  }
  if (i + 1 >= args.size()) {
    problem = "no command after --";
    return false;
  }
  options.argv.assign(args.begin() + static_cast<std::ptrdiff_t>(i) + 1, args.end());
  return true;
}

}  // namespace kilnfs::supervise
