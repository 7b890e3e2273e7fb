#include "tools/bench/command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <sstream>

#include "store/base/fd.h"
#include "store/base/process.h"

namespace kilnfs::bench {
namespace {

volatile std::sig_atomic_t caught = 0;

void onSignal(int number) {
  caught = number;
}

constexpr int kSignalBase = 128;
constexpr size_t kShown = 500;  // bytes of a failed command's output

// Reads what there is until the end. False when interrupted.
bool readAll(int fd, std::string& output) {
  std::array<char, 65536> block{};
  while (true) {
    struct pollfd wait = {fd, POLLIN, 0};
    if (interrupted()) return false;
    if (::poll(&wait, 1, 1000) <= 0) continue;
    const ssize_t n = ::read(fd, block.data(), block.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return true;
    output.append(block.data(), static_cast<size_t>(n));
  }
}

}  // namespace

void catchSignals() {
  struct sigaction action = {};
  action.sa_handler = onSignal;  // no SA_RESTART: blocking calls have to end
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

bool interrupted() {
  return caught != 0;
}

Expected<Ran> run(const Argv& argv, Group group) {
  if (interrupted()) return fail(EINTR, "interrupted");
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return failErrno("pipe");
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  Process::Options options;
  options.stdoutFd = options.stderrFd = writer.get();
  options.ownGroup = group == Group::kOwn;
  const Stopwatch watch;
  auto process = Process::start(argv, options);
  if (!process) return Failure(process.error());
  writer.reset();
  Ran ran;
  if (!readAll(reader.get(), ran.output)) {
    process->signal(SIGKILL);
    process->wait();
    return fail(EINTR, "interrupted");
  }
  const auto outcome = process->wait();
  ran.seconds = watch.seconds();
  ran.status = outcome.exit ? *outcome.exit : kSignalBase + outcome.signal.value_or(0);
  if (interrupted()) return fail(EINTR, "interrupted");
  return ran;
}

Expected<Ran> runOk(const Argv& argv, Group group) {
  auto ran = run(argv, group);
  if (!ran || ran->status == 0) return ran;
  const size_t from = ran->output.size() > kShown ? ran->output.size() - kShown : 0;
  std::string line;
  for (const auto& word : argv) line += (line.empty() ? "" : " ") + word;
  return fail(EIO, fmt::format("{}: status {}: {}", line, ran->status, ran->output.substr(from)));
}

bool installed(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream places(path != nullptr ? path : "/usr/bin:/bin");
  for (std::string place; std::getline(places, place, ':');) {
    if (::access((place + "/" + program).c_str(), X_OK) == 0) return true;
  }
  // Where mkfs is, for users too.
  return ::access(("/usr/sbin/" + program).c_str(), X_OK) == 0;
}

std::string selfPath() {
  std::string path(PATH_MAX, '\0');
  const ssize_t n = ::readlink("/proc/self/exe", path.data(), path.size());
  path.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return path;
}

}  // namespace kilnfs::bench
