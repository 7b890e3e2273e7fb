#include "tests/posix/site.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "store/base/fd.h"

namespace kilnfs::testing {
namespace {

std::string environment(const char* name, const std::string& otherwise) {
  const char* value = ::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

std::unique_ptr<Site> sites[2];

class EndSite : public ::testing::Environment {
 public:
  void TearDown() override {
    for (auto& site : sites) {
      if (site) site->finish();
      site.reset();
    }
    siginfo_t left = {};
    const int waited = ::waitid(P_ALL, 0, &left, WEXITED | WNOHANG | WNOWAIT);
    EXPECT_TRUE(waited != 0 && errno == ECHILD)
        << "a process is left: " << left.si_pid << " "
        << readFile("/proc/" + std::to_string(left.si_pid) + "/stat");
  }
};
const auto* const atTheEnd = ::testing::AddGlobalTestEnvironment(new EndSite);

}  // namespace

std::string place() {
  return environment("KILNFS_POSIX_DIR", "/tmp");
}

std::string nameOf(Kind kind) {
  switch (kind) {
    case Kind::native:
      return "native";
    case Kind::empty:
      return "empty";
    case Kind::filled:
      return "filled";
    case Kind::build:
      return "build";
    case Kind::overlay:
      return "overlay";
    case Kind::result:
      return "result";
  }
  return "?";
}

std::string stage() {
  return environment("KILNFS_POSIX_STAGE", "");
}

NativeTree::NativeTree() : dir_(place()) {
  EXPECT_EQ(::chmod(dir_.path().c_str(), 0755), 0);
}

Site& Site::get(bool overlays) {
  (void)atTheEnd;
  auto& site = sites[overlays ? 1 : 0];
  if (!site) site.reset(new Site(overlays));
  return *site;
}

Site::Site(bool overlays) : dir_(place()) {
  // Whatever the daemon would leave behind becomes our child, and is found.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  EXPECT_EQ(::chmod(dir_.path().c_str(), 0755), 0);
  for (const std::string& path : {mnt(), scratch()}) EXPECT_EQ(::mkdir(path.c_str(), 0755), 0);
  std::vector<std::string> options;
  const std::string wanted = environment("KILNFS_POSIX_OPTIONS", "");
  if (!wanted.empty()) options.push_back(wanted);
  if (!overlays) options.push_back("no_overlay");
  daemon_ = std::make_unique<Daemon>(store(), mnt(), options);
  EXPECT_TRUE(daemon_->mounted()) << daemon_->log();
}

Site::~Site() = default;

Answer Site::command(const std::string& line) const {
  Answer answer;
  const UniqueFd fd(::open(mnt("control").c_str(), O_RDWR | O_CLOEXEC));
  const ssize_t n = ::write(fd.get(), line.data(), line.size());
  answer.ok = n == static_cast<ssize_t>(line.size());
  answer.code = n < 0 ? errno : 0;
  char text[4096];
  for (ssize_t got; (got = ::read(fd.get(), text, sizeof text)) > 0;) {
    answer.text.append(text, static_cast<size_t>(got));
  }
  return answer;
}

std::string Site::fresh(const std::string& what) {
  return what + std::to_string(next_++);
}

std::string Site::lease(const std::string& name) const {
  const Answer answer = command("lease " + name + " --as posix");
  EXPECT_TRUE(answer.ok) << answer.text;
  const auto json = nlohmann::json::parse(answer.text, nullptr, false);
  return json.is_object() ? json.value("lease", "") : "";
}

Answer Site::release(const std::string& lease, const std::string& how) const {
  Answer answer;
  do {
    answer = command("release " + lease + how);
  } while (answer.text.find("\"EBUSY\"") != std::string::npos);
  return answer;
}

void Site::finish() {
  if (!daemon_) return;
  EXPECT_EQ(daemon_->end(SIGTERM), 0) << daemon_->log();
  EXPECT_TRUE(mountsBelow(dir_.path()).empty());
  for (const char* area : {"/result-tmp", "/cache-tmp"}) {
    EXPECT_EQ(entries(store() + area), 0u) << shell("ls -lAR " + store() + area).output;
  }
  daemon_.reset();
}

}  // namespace kilnfs::testing
