#include "tools/supervise/descendants.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace kilnfs::supervise {
namespace {

/// The parent of a process, or 0.
pid_t parentOf(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char buffer[1024];
  const ssize_t n = ::read(fd, buffer, sizeof buffer - 1);
  ::close(fd);
  if (n <= 0) return 0;
  buffer[n] = '\0';
  // "PID (NAME) STATE PPID ...", where NAME may hold anything, parentheses too.
  const char* end = std::strrchr(buffer, ')');
  if (end == nullptr || std::strlen(end) < 4) return 0;
  return static_cast<pid_t>(std::strtol(end + 4, nullptr, 10));
}

}  // namespace

void killDescendants() {
  std::multimap<pid_t, pid_t> children;
  DIR* proc = ::opendir("/proc");
  if (proc == nullptr) return;
  while (const struct dirent* entry = ::readdir(proc)) {
    const auto pid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
    if (pid > 0) children.emplace(parentOf(pid), pid);
  }
  ::closedir(proc);
  std::vector<pid_t> todo = {::getpid()};
  while (!todo.empty()) {
    const auto [first, last] = children.equal_range(todo.back());
    todo.pop_back();
    for (auto it = first; it != last; ++it) {
      ::kill(it->second, SIGKILL);
      todo.push_back(it->second);
    }
  }
}

}  // namespace kilnfs::supervise
