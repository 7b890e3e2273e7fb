// For a test as root: what a user may not do fails, as long as this lives. All threads are
// concerned.
#pragma once

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <string>

namespace kilnfs::testing {

class Unprivileged {
 public:
  /// `home` is given to the user. Who is no root stays who they are.
  explicit Unprivileged(const std::string& home) {
    if (::geteuid() != 0) return;
    constexpr uid_t kNobody = 65534;
    // The store lets its threads keep their capabilities when it takes on somebody's identity.
    EXPECT_EQ(::prctl(PR_SET_SECUREBITS, 0), 0);
    EXPECT_EQ(::chown(home.c_str(), kNobody, kNobody), 0);
    EXPECT_EQ(::setegid(kNobody), 0);
    EXPECT_EQ(::seteuid(kNobody), 0);
    changed_ = true;
  }
  ~Unprivileged() {
    if (!changed_) return;
    EXPECT_EQ(::seteuid(0), 0);
    EXPECT_EQ(::setegid(0), 0);
    EXPECT_EQ(::prctl(PR_SET_SECUREBITS, bits_), 0);
  }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;

 private:
  const int bits_ = ::prctl(PR_GET_SECUREBITS);
  bool changed_ = false;
};

}  // namespace kilnfs::testing
