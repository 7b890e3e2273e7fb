#include "store/build/supervised.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace kilnfs {
namespace {

/// What the supervisor is told (tools/supervise/options.h), where nobody else can read it.
Expected<UniqueFd> wordsFd(const std::vector<std::string>& words) {
  UniqueFd fd(::memfd_create("command", MFD_CLOEXEC));
  if (!fd.valid()) return failErrno("memfd_create");
  std::string all;
  for (const std::string& word : words) {
    all += word;
    all += '\0';
  }
  if (::write(fd.get(), all.data(), all.size()) != static_cast<ssize_t>(all.size()) ||
      ::lseek(fd.get(), 0, SEEK_SET) != 0) {
    return failErrno("write the command");
  }
  return fd;
}

std::vector<std::string> wordsOf(const Supervised::Spec& spec) {
  std::vector<std::string> out = {"--dir", spec.dir, "--kill-grace",
                                  std::to_string(spec.grace.count())};
  const auto add = [&out](std::initializer_list<std::string> words) {
    out.insert(out.end(), words);
  };
  if (!spec.below.empty()) add({"--below", spec.below});
  if (!spec.plain.empty()) add({"--plain", spec.plain});
  if (!spec.bind.empty()) add({"--bind", spec.bind});
  if (spec.namespaceFd >= 0) add({"--namespace-fd", "5"});
  for (const auto& [path, target] : spec.links) add({"--link", path, target});
  for (const std::string& pair : spec.env) add({"--env", pair});
  if (::geteuid() == 0) {
    add({"--uid", std::to_string(spec.account.uid), "--gid", std::to_string(spec.account.gid),
         "--groups", fmt::format("{}", fmt::join(spec.account.groups, ","))});
  }
  add({"--"});
  out.insert(out.end(), spec.argv.begin(), spec.argv.end());
  return out;
}

void understand(const std::string& report, Supervised::End& end) {
  const size_t space = report.find(' ');
  const std::string kind = report.substr(0, space);
  const char* rest = space == std::string::npos ? "" : report.c_str() + space + 1;
  char* text = nullptr;
  const long number = std::strtol(rest, &text, 10);
  if (kind == "exit") {
    end.exit = static_cast<int>(number);
  } else if (kind == "signal") {
    end.signal = static_cast<int>(number);
  } else if (kind == "error" && number > 0) {
    end.error = Error{static_cast<int>(number), *text == ' ' ? text + 1 : text};
  } else {
    end.error = Error{EIO, "the command's supervisor ended without a word: was it killed?"};
  }
}

std::string readAll(int fd) {
  std::string out;
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return out;
    out.append(buffer, static_cast<size_t>(n));
  }
}

}  // namespace

Expected<Supervised> Supervised::start(Supervisors& supervisors, const Spec& spec) {
  int status[2];
  if (::pipe2(status, O_CLOEXEC) != 0) return failErrno("pipe");
  UniqueFd statusRead(status[0]);
  const UniqueFd statusWrite(status[1]);
  // Now: without it nobody could end the command.
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC));
  if (!wake.valid()) return failErrno("eventfd");
  auto words = wordsFd(wordsOf(spec));
  if (!words) return Failure(words.error());
  std::vector<int> fds = {spec.outputFd, statusWrite.get(), words->get()};
  if (spec.namespaceFd >= 0) fds.push_back(spec.namespaceFd);
  auto process = supervisors.fork(fds);
  if (!process) return Failure(process.error());
  return Supervised(std::move(*process), std::move(statusRead), std::move(wake));
}

Supervised::End Supervised::run(Interrupt& interrupt, std::optional<Clock::time_point> deadline) {
  End end;
  const char go = 'g';
  if (interrupt.raised() || ::send(process_.go.get(), &go, 1, MSG_NOSIGNAL) != 1) {
    process_.go.reset();
  }
  watch(interrupt, deadline, end);
  understand(readAll(status_.get()), end);
  end.interrupted = interrupt.raised() && !end.timedOut && (!end.exit || end.interrupted);
  if (end.interrupted || end.timedOut) end.error.reset();
  return end;
}

void Supervised::watch(Interrupt& interrupt, std::optional<Clock::time_point> deadline, End& end) {
  interrupt.onRaise([wake = wake_] { ::eventfd_write(wake->get(), 1); });
  bool ending = false;
  for (;;) {
    int patience = -1;
    if (deadline && !ending) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now()).count();
      patience = static_cast<int>(std::clamp<int64_t>(left, 0, 1000000000));
    }
    struct pollfd fds[2] = {{process_.pidfd.get(), POLLIN, 0},
                            {ending ? -1 : wake_->get(), POLLIN, 0}};
    const int ready = ::poll(fds, 2, patience);
    if (ready < 0 && errno != EINTR) continue;
    if ((fds[0].revents & POLLIN) != 0) return;
    if (!ending && ready == 0 && deadline && Clock::now() >= *deadline) end.timedOut = true;
    if ((fds[1].revents & POLLIN) != 0) end.interrupted = true;
    if (!ending && (end.timedOut || end.interrupted)) {
      ending = true;
      ::syscall(SYS_pidfd_send_signal, process_.pidfd.get(), SIGTERM, nullptr, 0);
    }
  }
}

std::string describe(const Supervised::End& end) {
  if (end.timedOut) return "timed out and was ended";
  if (end.interrupted) return "was cancelled";
  if (end.error) return end.error->message;
  if (end.signal) {
    return fmt::format("was killed by signal {} ({})", *end.signal, ::strsignal(*end.signal));
  }
  return fmt::format("exited with status {}", end.exit.value_or(-1));
}

}  // namespace kilnfs
