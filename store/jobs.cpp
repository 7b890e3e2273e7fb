#include "store/jobs.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cctype>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "store/base/fd.h"

namespace kilnfs {
namespace {

constexpr int kMostAncestors = 256;

/// Calls fn for each process until it returns true; whether it did.
template <class Fn>
bool anyProcess(Fn fn) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir("/proc"), ::closedir);
  if (!dir) return false;
  while (const struct dirent* entry = ::readdir(dir.get())) {
    if (std::isdigit(static_cast<unsigned char>(entry->d_name[0])) == 0) continue;
    const auto info = readProcess(std::atoi(entry->d_name));
    if (info && fn(*info)) return true;
  }
  return false;
}

}  // namespace

std::optional<ProcessInfo> readProcess(pid_t pid) {
  if (pid <= 0) return std::nullopt;
  const UniqueFd fd(::open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
  char text[1024];
  const ssize_t n = fd.valid() ? ::read(fd.get(), text, sizeof text - 1) : -1;
  if (n <= 0) return std::nullopt;
  text[n] = '\0';
  // The name is in parentheses and may hold anything, parentheses and spaces too.
  const char* after = std::strrchr(text, ')');
  if (after == nullptr) return std::nullopt;
  ProcessInfo info;
  info.pid = pid;
  unsigned long long start = 0;
  if (std::sscanf(
          after + 1, " %c %d %d %d %d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
          &info.state, &info.parent, &info.group, &info.session, &info.terminal, &start) != 6) {
    return std::nullopt;
  }
  info.startTime = start;
  return info;
}

std::vector<ProcessInfo> ancestry(pid_t pid) {
  std::vector<ProcessInfo> chain;
  for (int i = 0; i < kMostAncestors && pid > 0; ++i) {
    const auto info = readProcess(pid);
    if (!info) break;
    chain.push_back(*info);
    pid = info->parent;
  }
  return chain;
}

Job jobOf(const ProcessInfo& member) {
  const auto leader = readProcess(member.group);
  return Job{member.group, leader ? leader->startTime : 0};
}

bool alive(const Job& job) {
  if (::kill(-job.group, 0) != 0 && errno == ESRCH) return false;
  const auto leader = readProcess(job.group);
  if (leader && job.leaderStart != 0 && leader->startTime != job.leaderStart) return false;
  if (leader && leader->group == job.group && leader->state != 'Z' && leader->state != 'X') {
    return true;
  }
  return anyProcess([&](const ProcessInfo& p) {
    return p.group == job.group && p.state != 'Z' && p.state != 'X';
  });
}

bool isInteractiveShell(const Job& job) {
  const auto leader = readProcess(job.group);
  return leader && leader->session == job.group && leader->terminal != 0;
}

bool sessionStandsIn(pid_t session, const std::string& part) {
  return anyProcess([&](const ProcessInfo& p) {
    if (p.session != session) return false;
    char path[PATH_MAX];
    const ssize_t n = ::readlink(fmt::format("/proc/{}/cwd", p.pid).c_str(), path, sizeof path);
    if (n <= 0) return false;
    const std::string_view cwd(path, static_cast<size_t>(n));
    const size_t at = cwd.find(part);
    // The whole component: npm.3 is not npm.31.
    return at != std::string_view::npos &&
           (at + part.size() == cwd.size() || cwd[at + part.size()] == '/');
  });
}

}  // namespace kilnfs
