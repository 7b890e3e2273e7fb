#include "store/overlay_mount.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/no_more_threads.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using testing::NoMoreThreads;
using testing::TempDir;

Expected<Mounted> mountOneIn(const std::string& dir) {
  const auto open = [&](const char* name) {
    const std::string path = dir + name;
    EXPECT_EQ(::mkdir(path.c_str(), 0755), 0);
    return UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  };
  std::vector<UniqueFd> lower;
  lower.push_back(open("lower"));
  const UniqueFd upper = open("upper");
  const UniqueFd work = open("work");
  return mountOverlay(lower, upper.get(), work.get(), false, dir + "upper");
}

TEST(OverlayMount, WhereNoThreadCanBeMadeThatIsAnError) {
  const TempDir dir;
  if (!mountOneIn(dir / "a.")) GTEST_SKIP() << "declared: no overlayfs for the daemon here";
  const NoMoreThreads none;
  const auto mounted = mountOneIn(dir / "b.");
  ASSERT_FALSE(mounted);
  EXPECT_EQ(mounted.error().code, EAGAIN);
}

}  // namespace
}  // namespace kilnfs
