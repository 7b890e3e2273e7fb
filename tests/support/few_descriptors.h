// Runs out of descriptors at each step of what is done.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cerrno>

#include "store/base/fd.h"

namespace kilnfs::testing {

/// Does it with more and more descriptors, so that each time it comes one step further, until it
/// succeeds (gives 0, else an errno): `check` of how many were free, and the errno, after each
/// failure.
template <class Do, class Check>
void withFewDescriptors(Do what, Check check) {
  struct rlimit most = {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &most), 0);
  const UniqueFd next(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  int failed = EMFILE;
  for (int room = 0; room < 64 && failed != 0; ++room) {
    struct rlimit few = most;
    few.rlim_cur = static_cast<rlim_t>(next.get() + room);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
    failed = what();
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &most), 0);
    if (failed != 0) check(room, failed);
  }
  EXPECT_EQ(failed, 0);
}

}  // namespace kilnfs::testing
