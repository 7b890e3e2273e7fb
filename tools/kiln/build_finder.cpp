#include "tools/kiln/build_finder.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>

namespace kilnfs {

std::string buildRequestedBy(pid_t requester, std::string_view named, std::string_view lines) {
  while (!lines.empty()) {
    const size_t end = lines.find('\n');
    const auto event = nlohmann::json::parse(lines.substr(0, end), nullptr, false);
    lines.remove_prefix(end == std::string_view::npos ? lines.size() : end + 1);
    if (!event.is_object()) continue;
    const auto pid = event.find("pid");
    const auto kind = event.find("event");
    const auto id = event.find("id");
    if (pid == event.end() || kind == event.end() || id == event.end() || !id->is_string())
      continue;
    if (*kind != "build") continue;
    if (*pid == requester || (!named.empty() && *id == named)) return id->get<std::string>();
  }
  return {};
}

BuildFinder::BuildFinder(const std::string& mount, std::string named)
    : named_(std::move(named)),
      events_(open((mount + "/events").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
  readNew();
}

std::string BuildFinder::readNew() {
  constexpr size_t kBlock = 65536;
  std::string text = std::move(rest_);
  std::array<char, kBlock> block{};
  ssize_t n = 0;
  while (events_.valid() && (n = read(events_.get(), block.data(), block.size())) > 0) {
    text.append(block.data(), static_cast<size_t>(n));
  }
  const size_t whole = text.rfind('\n') + 1;  // 0 if there is none
  rest_ = text.substr(whole);
  text.resize(whole);
  return text;
}

std::string BuildFinder::find(pid_t requester) {
  return buildRequestedBy(requester, named_, readNew());
}

}  // namespace kilnfs
