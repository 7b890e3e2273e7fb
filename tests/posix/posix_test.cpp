#include "tests/posix/posix_test.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include <iostream>
#include <sstream>

namespace kilnfs::testing {
namespace {

constexpr const char* kTest = "/proc/self/exe";
constexpr const char* kInstead = "instead: ";

bool onKind(Kind kind) {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  return std::string(info->name()).ends_with("/" + nameOf(kind));
}

// What the test that ran as a build's command noted is noted by the one that ran the build.
void passOnNotes(const std::string& log) {
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(kInstead)) instead(line.substr(std::string(kInstead).size()));
  }
}

}  // namespace

bool onNative() {
  return onKind(Kind::native);
}

bool onOverlay() {
  return onKind(Kind::overlay);
}

void instead(const std::string& why) {
  ::testing::Test::RecordProperty("instead", why);
  if (!stage().empty()) std::cout << kInstead << why << "\n";
}

void Posix::TearDown() {
  std::filesystem::current_path(former_);
}

void Posix::run(const Part& prepare, const Part& body) {
  ::umask(022);
  if (GetParam() == Kind::build || GetParam() == Kind::overlay) return inBuild(prepare, body);
  if (GetParam() == Kind::native) {
    const NativeTree tree;
    std::filesystem::current_path(tree.path());
    if (prepare) prepare();
    body();
    return std::filesystem::current_path(former_);
  }
  if (GetParam() == Kind::result) return inResult(prepare, body);
  inLease(prepare, body);
}

void Posix::inLease(const Part& prepare, const Part& body) {
  Site& site = Site::get();
  const std::string cache = site.fresh("c");
  std::string lease = site.lease(cache);
  std::filesystem::current_path(site.mnt("leases/" + lease));
  if (prepare) prepare();
  if (GetParam() == Kind::filled) {
    std::filesystem::current_path(former_);
    const Answer released = site.release(lease);
    ASSERT_TRUE(released.ok) << released.text;
    lease = site.lease(cache);
    std::filesystem::current_path(site.mnt("leases/" + lease));
  }
  body();
  std::filesystem::current_path(former_);
  const Answer released = site.release(lease, " --discard");
  EXPECT_TRUE(released.ok) << released.text;
}

void Posix::inResult(const Part& prepare, const Part& body) {
  Site& site = Site::get();
  const std::string id = site.fresh("r");
  {
    const NativeTree tree;
    std::filesystem::current_path(tree.path());
    if (prepare) prepare();
    std::filesystem::current_path(former_);
    const Answer imported = site.command("import " + id + " " + tree.path());
    ASSERT_TRUE(imported.ok) << imported.text;
  }
  std::filesystem::current_path(site.mnt("results/" + id));
  body();
}

// The test program runs itself as the build's command: once to prepare, whose result is the base of
// the build that is tested.
void Posix::inBuild(const Part& prepare, const Part& body) {
  if (!stage().empty()) {
    // We are the command: the working directory is the tree.
    if (stage() == "prepare") {
      if (prepare) return prepare();
      if (onOverlay()) put("below", "");  // there is no overlay over nothing
      return;
    }
    struct statfs fs = {};
    ASSERT_EQ(::statfs(".", &fs), 0);
    ASSERT_EQ(fs.f_type == OVERLAYFS_SUPER_MAGIC, onOverlay());
    return body();
  }
  Site& site = Site::get(onOverlay());
  const std::string id = site.fresh("b");
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  const std::string command = " -- " + std::filesystem::read_symlink(kTest).string() +
                              " --gtest_color=no --gtest_filter=" + info->test_suite_name() + "." +
                              info->name();
  const auto build = [&](const std::string& request, const std::string& stage) {
    const Answer built = site.command("build " + request + " --env KILNFS_POSIX_DIR=" + place() +
                                      " --env KILNFS_POSIX_STAGE=" + stage + " --wait" + command);
    const std::string log = readFile(site.mnt("logs/" + request.substr(0, request.find(' '))));
    EXPECT_TRUE(built.ok) << built.text << log;
    passOnNotes(log);
    return built.ok;
  };
  if (build(id + "-base", "prepare")) build(id + " --base " + id + "-base", "run");
}

}  // namespace kilnfs::testing
