// Names right below results/, leases/ and builds/: the kernel keeps them, and forgets them in time.

#include <signal.h>

#include "tests/support/lease_fixture.h"

namespace kilnfs::testing {
namespace {

class Names : public MountedStore {
 protected:
  void SetUp() override {
    MountedStore::SetUp();
    start();
  }
  Ran sh(const std::string& command) { return shell(command, mnt()); }
  /// Whether `path` can be looked at while the daemon stands still, from the directory `from`: what
  /// the kernel knows of the mount's root is for a moment only.
  bool knownWithoutDaemon(const std::string& from, const std::string& path) {
    const auto former = std::filesystem::current_path();
    std::filesystem::current_path(mnt(from));
    ::kill(daemon_->pid(), SIGSTOP);
    const int status = asUser(0, [&] {
      ::alarm(5);
      struct stat st = {};
      return ::stat(path.c_str(), &st) == 0 ? 0 : 1;
    });
    ::kill(daemon_->pid(), SIGCONT);
    std::filesystem::current_path(former);
    return status == 0;
  }
};

TEST_F(Names, WhatWasLookedAtNeedsNoDaemon) {
  ASSERT_EQ(sh("echo \"build r --wait -c 'echo text > f'\" > control").status, 0);
  ASSERT_EQ(sh("echo 'lease c --as t' > control; touch leases/c.1/f").status, 0);
  ASSERT_EQ(sh("stat results/r/f leases/c.1/f").status, 0);
  EXPECT_TRUE(knownWithoutDaemon("results", "r/f"));
  EXPECT_TRUE(knownWithoutDaemon("leases", "c.1/f"));
}

TEST_F(Names, ADeletedResultIsGoneAtOnceAndCanComeAnew) {
  for (const std::string remove :
       {"echo 'delete r' > control", "rmdir results/r", "echo 'prune --max 0' > control"}) {
    for (int i = 0; i < 20; ++i) {
      const std::string text = std::to_string(i);
      ASSERT_EQ(sh("echo \"build r --wait -c 'echo " + text + " > f'\" > control").status, 0);
      EXPECT_EQ(sh("cat results/r/f").output, text + "\n");
      ASSERT_EQ(sh(remove).status, 0) << remove;
      EXPECT_EQ(sh("stat results/r 2>&1 >/dev/null | grep -c 'No such file'").output, "1\n")
          << remove;
    }
  }
}

TEST_F(Names, AReleasedLeaseIsGoneAtOnce) {
  for (const std::string release : {"rmdir leases/c.1", "echo 'release c.2' > control"}) {
    ASSERT_EQ(sh("echo 'lease c --as t' > control").status, 0);
    const std::string path = release.substr(0, 5) == "rmdir" ? "leases/c.1" : "leases/c.2";
    ASSERT_EQ(sh("echo 1 >> " + path + "/f").status, 0);
    ASSERT_EQ(sh(release).status, 0) << release;
    EXPECT_NE(sh("stat " + path).status, 0) << release;
  }
}

// The kernel keeps the name of a lease, but for its holder alone.
TEST_F(Names, ALeaseLetsNobodyElseInWhateverItsMode) {
  ASSERT_EQ(sh("echo 'lease c --as t' > control; echo secret > leases/c.1/f").status, 0);
  const std::string file = mnt("leases/c.1/f");
  const auto refused = [&] {
    const auto tries = [&] {
      return ::open(file.c_str(), O_RDONLY) < 0 && errno == EACCES &&
                     ::chdir(mnt("leases/c.1").c_str()) < 0 && errno == EACCES
                 ? 0
                 : 1;
    };
    return asUser(kOther, tries) == 0;
  };
  EXPECT_EQ(sh("cat leases/c.1/f").output, "secret\n");
  EXPECT_TRUE(refused());
  for (const char* opens :
       {"chmod 777", "chmod 705", "ls -ld", "setfacl -m u:65534:rwx", "chown 65534", "chmod 755"}) {
    ASSERT_EQ(sh(std::string(opens) + " leases/c.1").status, 0);
    EXPECT_TRUE(refused()) << opens;
    EXPECT_EQ(sh("cat leases/c.1/f").output, "secret\n");
    EXPECT_TRUE(refused()) << opens << ", looked up again";
  }
}

// Its number is one of many: a link that is only read takes one too.
TEST_F(Names, ALeaseThatItsHolderLooksAtLetsNobodyElseIn) {
  ASSERT_EQ(sh("readlink caches/never.used").output, "../leases/never.used.1\n");
  ASSERT_EQ(sh("echo 'lease c --as t' > control; echo secret > leases/c.2/f").status, 0);
  ASSERT_EQ(sh("cat leases/c.2/f; ls -ld leases/c.2").status, 0);
  const std::string file = mnt("leases/c.2/f");
  EXPECT_EQ(asUser(kOther, [&] { return ::open(file.c_str(), O_RDONLY) < 0 ? errno : 0; }), EACCES);
}

// What the holder's own program does by another user, where it stands, goes by the mode.
TEST_F(Names, WhoStandsInALeaseIsLetInByItsMode) {
  ASSERT_EQ(sh("echo 'lease c --as t' > control; echo text > leases/c.1/f").status, 0);
  const std::string root = mnt("leases/c.1");
  const auto reads = [&](const char* path) {
    return asUser(kOther, [&] { return ::open(path, O_RDONLY) < 0 ? errno : 0; });
  };
  const auto former = std::filesystem::current_path();
  std::filesystem::current_path(root);
  EXPECT_EQ(reads("f"), 0);
  EXPECT_EQ(reads((root + "/f").c_str()), EACCES);
  EXPECT_EQ(reads("f"), 0);
  std::filesystem::permissions(".", std::filesystem::perms::owner_all);
  EXPECT_EQ(reads("f"), EACCES);
  std::filesystem::current_path(former);
  EXPECT_EQ(reads((root + "/f").c_str()), EACCES);
}

// The kernel looks at the rights to what is moved with the locks of both directories held: what we
// do for telling them must not need those.
TEST_F(Names, MovingALeaseIsRefusedAndHoldsUpNobody) {
  finish();
  start({"control_mode=0666"});
  const auto byHolder = [&](const std::string& command) { return shell(command, mnt(), kOther); };
  ASSERT_EQ(byHolder("echo 'lease c --as t' > control; touch leases/c.1/f").status, 0);
  const auto move = [&] {
    ::alarm(30);
    return ::rename(mnt("leases/c.1").c_str(), mnt("builds/x").c_str()) < 0 ? errno : 0;
  };
  EXPECT_EQ(asUser(0, move), EXDEV);
  EXPECT_EQ(sh("timeout 30 ls leases").output, "c.1\n");
  EXPECT_EQ(byHolder("timeout 30 ls leases/c.1").output, "f\n");
}

// So does chmod with the lock of the lease, for which rmdir waits with the one of leases/.
TEST_F(Names, ALeaseIsOpenedAndRemovedAtOnce) {
  for (int i = 0; i < 5; ++i) {
    const std::string lease = "leases/c." + std::to_string(i + 1);
    ASSERT_EQ(sh("echo 'lease c --as t" + std::to_string(i) + "' > control; touch " + lease + "/f")
                  .status,
              0);
    ASSERT_EQ(sh("timeout 30 chmod 705 " + lease + " & timeout 30 setfacl -m u:1:rx " + lease +
                 " & timeout 30 rmdir " + lease + "; wait")
                  .status,
              0);
    EXPECT_EQ(sh("timeout 30 ls leases").output, "");
  }
}

// It is shown as it is to who has the right to look.
TEST_F(Names, TheRootOfALeaseHasNoAclThatNobodyGaveIt) {
  ASSERT_EQ(sh("echo 'lease c --as t' > control; stat leases/c.1").status, 0);
  EXPECT_EQ(sh("getfacl -cE --omit-header leases/c.1").output,
            "user::rwx\ngroup::r-x\nother::r-x\n\n");
  EXPECT_EQ(sh("stat -c %A leases/c.1").output, "drwxr-xr-x\n");
}

// The second attempt is made where the first one was, in another directory.
TEST_F(Names, ARetriedBuildBeginsAnew) {
  finish();
  start({"no_overlay"});
  const auto build = [&](const std::string& id, const std::string& command) {
    return sh("echo 'build " + id + " --retry --wait -c \"" + command + "\"' > control").output;
  };
  EXPECT_NE(build("a", "test -e done || { touch done; exit 1; }"), "");
  EXPECT_EQ(sh("ls results").output, "") << "an attempt that failed is not a result";
  const std::string flag = dir_ / "flag";
  EXPECT_EQ(build("b", "test -e " + flag + " || { touch " + flag + "; exit 1; }; echo 2 > f"), "");
  EXPECT_EQ(sh("cat results/b/f").output, "2\n");
}

// mv would copy the link and then remove it, which deletes the cache.
TEST_F(Names, ACacheIsNotMovedWithinTheMount) {
  ASSERT_EQ(sh("setsid -w sh -c 'echo text > caches/c/f'").status, 0);
  EXPECT_NE(sh("mv caches/c caches/d").status, 0);
  EXPECT_NE(sh("mv -T caches/c caches/d").status, 0);
  EXPECT_NE(sh("mv caches/c leases").status, 0);
  EXPECT_EQ(sh("cat caches/c/f").output, "text\n");
}

TEST_F(Names, ACacheIsRemovedThoughItsHolderWasThereAMomentAgo) {
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(sh("setsid -w sh -c 'echo text > caches/c/f'; rm caches/c").output, "");
    EXPECT_EQ(
        sh("setsid -w sh -c 'echo text > caches/c/f'; echo 'delete-cache c' > control").output, "");
  }
}

TEST_F(Names, HaveTheSpaceOfTheStoresFileSystem) {
  ASSERT_EQ(sh("echo \"build r --wait -c 'echo text > f'\" > control").status, 0);
  EXPECT_EQ(sh("for f in " + store() +
               " . README control errors events results results/r results/r/f logs/r; do"
               " stat -f -c '%S %b %c' $f; done | uniq | wc -l")
                .output,
            "1\n");
}

}  // namespace
}  // namespace kilnfs::testing
