// No thread can be made as long as this lives, by whatever right: as where a limit of the system's
// is reached. Those that are there go on.
#pragma once

#include <gtest/gtest.h>
#include <pthread.h>

namespace kilnfs::testing {

class NoMoreThreads {
 public:
  NoMoreThreads() {
    pthread_attr_t attributes;
    EXPECT_EQ(::pthread_getattr_default_np(&attributes), 0);
    EXPECT_EQ(::pthread_attr_getstacksize(&attributes, &usual_), 0);
    ::pthread_attr_destroy(&attributes);
    setStack(size_t{1} << 48);  // more than there are addresses
  }
  ~NoMoreThreads() { setStack(usual_); }
  NoMoreThreads(const NoMoreThreads&) = delete;
  NoMoreThreads& operator=(const NoMoreThreads&) = delete;

 private:
  static void setStack(size_t size) {
    pthread_attr_t attributes;
    EXPECT_EQ(::pthread_attr_init(&attributes), 0);
    EXPECT_EQ(::pthread_attr_setstacksize(&attributes, size), 0);
    EXPECT_EQ(::pthread_setattr_default_np(&attributes), 0);
    ::pthread_attr_destroy(&attributes);
  }

  size_t usual_ = 0;
};

}  // namespace kilnfs::testing
