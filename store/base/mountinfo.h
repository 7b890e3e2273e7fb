// Lines of /proc/self/mountinfo, and the device numbers in them.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

namespace kilnfs {

struct MountLine {
  std::string device;  // "0:47"
  std::string root;    // of the file system, that is mounted there
  std::string point;   // where; decoded
  std::string type;    // as "fuse.kilnfs"
};

/// A path as it is: the kernel writes blanks, tabs, newlines and backslashes as \ooo.
inline std::string decodedPath(std::string_view field) {
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string out;
  for (size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size() && octal(field[i + 1]) && octal(field[i + 2]) &&
        octal(field[i + 3])) {
      out += static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 +
                               (field[i + 3] - '0'));
      i += 3;
    } else {
      out += field[i];
    }
  }
  return out;
}

inline MountLine mountLine(const std::string& line) {
  // id parent major:minor root mount-point options [optional fields] - type source options
  std::istringstream fields(line);
  MountLine out;
  std::string id, parent, point, field;
  fields >> id >> parent >> out.device >> out.root >> point;
  while (fields >> field && field != "-") {
  }
  fields >> out.type;
  out.point = decodedPath(point);
  return out;
}

/// Whether something of `type` is mounted at `point`, as far as can be seen.
inline bool isMounted(std::string_view type, std::string_view point) {
  std::ifstream table("/proc/self/mountinfo");
  if (!table) return true;  // nothing says otherwise
  for (std::string text; std::getline(table, text);) {
    const MountLine line = mountLine(text);
    if (line.type == type && line.point == point) return true;
  }
  return false;
}

/// The device number of what is at `path` below `dir`, or of `dir` itself if it is empty, as in
/// MountLine. Asks nothing of a file system that is mounted there, which might not answer. Empty,
/// with errno: it can't be looked at.
inline std::string deviceAt(int dir, const char* path) {
  struct statx about = {};
  constexpr int kAskNobody =
      AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH;
  if (::statx(dir, path, kAskNobody, 0, &about) != 0) return {};
  return std::to_string(about.stx_dev_major) + ":" + std::to_string(about.stx_dev_minor);
}

}  // namespace kilnfs
