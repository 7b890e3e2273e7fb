// Builds at native speed and builds through the mount make the same results.
#include <gtest/gtest.h>

#include <csignal>

#include "tests/support/manifest.h"
#include "tests/support/native_builds.h"

namespace kilnfs::testing {
namespace {

struct Case {
  const char* name;
  const char* script;
};

constexpr Case kCases[] = {
    {"nothing", "true"},
    {"create", "echo new >top; echo new >a/new; mkdir -p a/deep/d/e; echo x >a/deep/d/e/f"},
    {"overwrite", "echo other >a/f1; echo other >a/deep/er/still/f1; cat a/f2 >b/one/f1"},
    {"truncate", ": >a/f1; truncate -s 3 b/f2; truncate -s 100000 c/f1; truncate -s 1000 a/sparse"},
    {"append", "echo more >>a/f1; echo more >>a/none; echo more >>a/deep/er/f3"},
    {"chmod", "chmod 600 a/f1; chmod 4711 b/f2; chmod 700 a/deep; chmod 0555 c; chmod 755 ."},
    {"chown", "chown 5:6 a/f1 a/deep; chown -h 7:8 a/link; chown 9 ."},
    {"touch", "touch -d 2003-04-05 a/f1 a/deep a/fifo; touch -h -d 2003-04-06 a/link"},
    {"rename file", "mv a/f1 a/moved; mv a/f2 b/f2.moved; mv a/deep/er/f3 top; mv b/f3 c/f3"},
    {"rename over", "mv a/f1 b/f1; mv a/setuid a/f2; mv -T a/link b/f2; mv -T empty open.d"},
    {"rename directory", "mv a/deep a/shallow; mv b c/b; mv c/b/one moved; mkdir n; mv empty n/e"},
    {"rename directory twice", "mv a x; mv x y; mkdir z; mv y z/a; mv z/a/deep d; echo 1 >d/er/n"},
    {"rename and change", "mv a/deep d; echo 1 >d/f1; rm d/er/f2; mv d/er e; echo 2 >>e/still/f3"},
    {"rename into a new directory", "mkdir n; mv a n/; mkdir n/m; mv n/a/deep n/m/; mv n o"},
    {"exchange",
     "python3 - <<'E'\nimport ctypes\nc = ctypes.CDLL(None, use_errno=True)\n"
     "def swap(a, b):\n  if c.renameat2(-100, a, -100, b, 2): raise OSError(ctypes.get_errno())\n"
     "swap(b'a', b'b')\nswap(b'a/one', b'c')\nswap(b'b/f1', b'b/deep')\nswap(b'b/l1', "
     "b'b/f2')\nE\n"},
    {"replace by another type",
     "rm a/f1; mkdir a/f1; echo x >a/f1/x; rm -r a/deep; echo f >a/deep;"
     "rm -r c; ln -s b c; rm a/link; mkfifo a/link; rm a/fifo"},
    {"delete", "rm a/f1 a/fifo a/null a/link b/abs; rm -r b/one a/deep/er; rmdir empty"},
    {"delete all", "chmod -R u+w .; rm -rf -- *"},
    {"delete and make again",
     "rm -r a; mkdir a; echo new >a/f1; rm -r b; mkdir -p b/one; rm c/f1;"
     "echo c >c/f1"},
    {"delete what was moved in", "mv a/deep b/one/deep; rm -r b/one; mkdir b/one; mv b/two b/one/"},
    {"hard link", "ln a/f1 a/f1.hard; ln b/f1 c/b.f1; ln a/f1 top; echo more >>top; ln a/l1 a/l3"},
    {"hard link in new directories", "mkdir n; ln a/f1 n/1; ln n/1 n/2; echo x >n/3; ln n/3 n/4"},
    {"write by one of several names", "echo more >>a/l1; echo more >>c/x2; echo more >>b/two/t3"},
    {"write by one name, move another", "echo more >>a/l1; mv a/l2 c/; mv b/x1 a/; echo 1 >>c/x2"},
    {"attributes by one of several names", "chmod 600 a/l2; setfattr -n user.n -v 1 b/x1"},
    {"unlink one of several names", "rm a/l1; rm c/x2; rm b/two/t3"},
    {"unlink and write", "rm a/deep/t1; echo more >>a/deep/er/t2; rm b/x1; echo more >>c/x2"},
    {"unlink all of several names", "rm a/l1 a/l2 b/x1 c/x2; echo new >a/l2"},
    {"one name more, and less", "ln a/deep/t1 top; rm b/two/t3; ln c/x2 a/x3; rm c/x2"},
    {"several names, moved by directory", "mv a/deep d; echo more >>d/er/t2; mv b/two d/"},
    {"replace one of several names", "echo n >n; mv n a/l1; cp -f a/f1 c/x2; ln -f a/f2 a/deep/t1"},
    {"hard link of a symbolic link", "ln a/link a/link.3; rm a/link.hard; mv a/link c/"},
    {"extended attributes",
     "setfattr -n user.colour -v green a/f1; setfattr -x user.colour a/deep;"
     "setfattr -n trusted.more -v x b; setfattr -n user.n -v 1 b/f1 a/deep/er"},
    {"attributes that overlays use",
     "setfattr -n trusted.overlay.opaque -v y a; setfattr -n trusted.overlay.foo -v bar a/f1;"
     "mkdir n; setfattr -n trusted.overlay.redirect -v /b n; echo x >n/x;"
     "echo 2 >n/2; setfattr -n trusted.overlay.two -v names n/2; ln n/2 n/3; ln n/2 b/4"},
    {"access lists",
     "setfacl -m u:55:r a/f1; setfacl -b a/f3; echo x >b/one/new; mkdir b/one/d;"
     "setfacl -m d:g:77:rx a/deep; mkdir a/deep/inherits"},
    {"special files",
     "mkfifo a/p; mknod b/z c 1 5; mknod b/l b 7 1; ln -s x c/s;"
     "python3 -c 'import socket; socket.socket(1).bind(\"sock\")'"},
    {"set-id directory", "mkdir g; chgrp 42 g; chmod 2775 g; mkdir g/d; echo x >g/d/f"},
    {"locked directory", "chmod 755 locked; echo x >locked/in; chmod 0555 locked; mkdir -m 0 none"},
    {"deep tree",
     "d=.; for i in $(seq 100); do d=$d/level$i; done; mkdir -p $d; echo x >$d/f;"
     "mv a/deep level1/level2/; echo y >>level1/level2/deep/er/still/f1"},
    {"long names",
     "n=$(printf 'n%.0s' $(seq 255)); echo x >>c/$n/$n; mv c/$n c/m; mkdir $n;"
     "mv c/m/$n $n/$n; echo y >c/$n"},
    {"names of overlays", "echo x >.wh.f1; echo x >a/.wh..opq; mkdir '#1'; echo x >'#1/#2'"},
    {"strange names", "mkdir a,b:c=d; mv a a,b:c=d/'x y'; echo 1 >'a,b:c=d/x y/f1'; mv b 'b\\'"},
    {"tools",
     "cp -a a copy; tar cf - b | (mkdir t; tar xf - -C t); rsync -aHAX c/ r/;"
     "sed -i s/f1/F1/ copy/f1; find copy -name f2 -delete"},
    {"sparse",
     "cp --sparse=always a/sparse s; truncate -s 5M a/sparse; fallocate -p -o 0 -l 4096 s"},
};

constexpr const char* kMore = "echo x >after; rm -f a/f3; true";

constexpr const char* kModes[] = {"copy", "hardlink"};

class BothWays : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!nativeBuildsPossible()) GTEST_SKIP() << "declared: no overlayfs for the daemon here";
    ASSERT_EQ(::chmod(dir_.path().c_str(), 0755), 0);
    writeFile(dir_ / "make-base", kBase);
    const Ran made = shell("mkdir base && cd base && bash ../make-base", dir_.path());
    ASSERT_EQ(made.status, 0) << made.output;
    const std::string mode = std::string("mode=") + GetParam();
    native_ = std::make_unique<BuildStore>(dir_ / "native", std::vector{mode});
    mounted_ = std::make_unique<BuildStore>(dir_ / "mounted",
                                            std::vector{mode, std::string("no_overlay")});
    for (const auto* store : {native_.get(), mounted_.get()}) {
      const Ran imported = store->kiln("import base " + (dir_ / "base"));
      ASSERT_EQ(imported.status, 0) << imported.output;
    }
  }
  static void expectSame(const std::map<std::string, std::string>& a,
                         const std::map<std::string, std::string>& b) {
    const std::string text = difference(a, b);
    EXPECT_TRUE(text.empty()) << text;
  }
  std::map<std::string, std::string> result(const BuildStore& store, const std::string& id) {
    return manifest(store.mnt() + "/results/" + id);
  }
  /// Both results are the same; gives the first line of what the native build printed.
  std::string buildBoth(const std::string& id, const std::string& base, const std::string& script) {
    const Ran fast = native_->build(id, base, script);
    const Ran slow = mounted_->build(id, base, script);
    EXPECT_EQ(fast.status, 0) << fast.output;
    EXPECT_EQ(slow.status, 0) << slow.output;
    expectSame(result(*native_, id), result(*mounted_, id));
    return fast.output.substr(0, fast.output.find('\n'));
  }

  TempDir dir_;
  std::unique_ptr<BuildStore> native_;
  std::unique_ptr<BuildStore> mounted_;
};

TEST_P(BothWays, TheBaseIsTheSame) {
  expectSame(result(*native_, "base"), result(*mounted_, "base"));
  const auto base = result(*native_, "base");
  EXPECT_GT(base.size(), 50U);
}

TEST_P(BothWays, TheCommandsFileSystemIsWhatItShouldBe) {
  EXPECT_EQ(native_->build("x", "base", "stat -f -c %T . >/tmp/../$PWD/type").status, 0);
  EXPECT_EQ(readFile(native_->mnt() + "/results/x/type"), "overlayfs\n");
  EXPECT_EQ(mounted_->build("x", "base", "stat -f -c %T . >type").status, 0);
  EXPECT_EQ(readFile(mounted_->mnt() + "/results/x/type"), "fuseblk\n");
}

TEST_P(BothWays, EveryCaseMakesTheSameResult) {
  const auto base = result(*native_, "base");
  int n = 0;
  for (const Case& each : kCases) {
    SCOPED_TRACE(each.name);
    const std::string id = "case." + std::to_string(n++);
    buildBoth(id, "base", std::string("set -e\n") + each.script);
    // Once more, on what the first one made.
    buildBoth(id + ".on", id, kMore);
    expectSame(result(*native_, "base"), base);
  }
}

// Everything moved away, and back again: a chain of results none of which is plain.
TEST_P(BothWays, EveryCaseOnOneThatIsNotPlainYet) {
  for (const char* id : {"away", "back"}) native_->holdUp(id);
  buildBoth("away", "base", "mv a A; mv b B; mkdir x; mv c open.d x/; rm log; mv A/deep x/D");
  buildBoth("back", "away", "mv A a; mv B b; mv x/* .; mv D a/deep; rmdir x; echo log >log");
  const auto back = result(*native_, "back");
  int n = 0;
  for (const Case& each : kCases) {
    const std::string_view name = each.name;
    if (name == "delete all") continue;  // what has nothing of its base is plain at once
    SCOPED_TRACE(name);
    const std::string id = "case." + std::to_string(n++);
    native_->holdUp(id);
    native_->holdUp(id + ".on");
    EXPECT_EQ(buildBoth(id, "back", std::string("stat -f -c %T .; set -e\n") + each.script),
              "overlayfs");
    const bool theirs = name == "attributes that overlays use";
    EXPECT_EQ(buildBoth(id + ".on", id, std::string("stat -f -c %T .\n") + kMore),
              theirs ? "fuseblk" : "overlayfs");
    const auto sealed = result(*native_, id + ".on");
    native_->letGo(id);
    native_->letGo(id + ".on");
    (void)native_->kiln("complete-deletes");  // those below still can't be made plain
    EXPECT_TRUE(exists(native_->store() + "/result/" + id + ".on/."));
    expectSame(result(*native_, id + ".on"), sealed);
    EXPECT_EQ(buildBoth(id + ".plain", id, std::string("stat -f -c %T .\n") + kMore),
              theirs ? "fuseblk" : "overlayfs");
  }
  for (const char* id : {"away", "back"}) native_->letGo(id);
  native_->settle();
  EXPECT_EQ(shell("ls | grep ^layer", native_->store() + "/result-tmp").output, "");
  expectSame(result(*native_, "back"), back);
}

// In mode copy it has other files then than those that the result over it was built with.
TEST_P(BothWays, OnOneWhoseBaseHasBecomePlainMeanwhile) {
  for (const char* id : {"below", "above"}) native_->holdUp(id);
  buildBoth("below", "base", "echo n >n");
  buildBoth("above", "below", "echo m >m; echo k >b/k");
  native_->letGo("below");
  (void)native_->kiln("complete-deletes");
  ASSERT_TRUE(exists(native_->store() + "/result/below/n"));
  EXPECT_EQ(buildBoth("x", "above", R"(stat -f -c %T .; echo more >>a/l1; echo more >>c/x2
    echo more >>b/two/t3; rm a/deep/t1; cat a/l? b/x1 c/x2 a/deep/er/t2 >seen)"),
            "overlayfs");
  native_->letGo("above");
  native_->settle();
  expectSame(result(*native_, "x"), result(*mounted_, "x"));
}

TEST_P(BothWays, WithoutABaseToo) {
  const char* script = "mkdir -p a/b; echo x >a/b/c; ln a/b/c d; chmod 0555 a; stat -f -c %T . >&2";
  const Ran fast = native_->build("x", "", script);
  EXPECT_EQ(fast.status, 0) << fast.output;
  EXPECT_EQ(fast.output.find("fuse"), std::string::npos) << fast.output;
  EXPECT_EQ(mounted_->build("x", "", script).status, 0);
  expectSame(result(*native_, "x"), result(*mounted_, "x"));
}

TEST_P(BothWays, OnAnEmptyBaseToo) {
  for (const auto* store : {native_.get(), mounted_.get()}) {
    EXPECT_EQ(
        store->build("bare", "", "chmod 2770 .; setfattr -n user.n -v 1 .; touch -d @1 .").status,
        0);
    EXPECT_EQ(store->build("same", "bare", "true").status, 0);
    EXPECT_EQ(
        store->build("more", "bare", "mkdir a; echo x >a/b; ln a/b c; touch -d @2 . a").status, 0);
    EXPECT_EQ(store->build("all", "more", "test -e a/b; rm -r *; touch -d @3 .").status, 0);
    expectSame(result(*store, "same"), result(*store, "bare"));
  }
  for (const char* id : {"bare", "more", "all"}) {
    expectSame(result(*native_, id), result(*mounted_, id));
  }
}

TEST_P(BothWays, AFailureLeavesNothing) {
  for (const auto* store : {native_.get(), mounted_.get()}) {
    EXPECT_EQ(store->build("x", "base", "rm -r a; echo x >b/f1; exit 3").status, 3);
    EXPECT_FALSE(exists(store->mnt() + "/results/x"));
    EXPECT_FALSE(exists(store->mnt() + "/builds/x"));
    EXPECT_NE(store->build("x", "base", "rm -r a; kill -9 $$").status, 0);
    EXPECT_FALSE(exists(store->mnt() + "/results/x"));
    EXPECT_EQ(store->build("x", "base", "true").status, 0);
    expectSame(result(*store, "x"), result(*store, "base"));
  }
}

TEST_P(BothWays, SourcesAndCachesAreSeen) {
  const std::string options = "--copy " + (dir_ / "base/a") + ":got --copy " + (dir_ / "base/log") +
                              ":got/log --cache npm:c/n";
  const char* script = "set -e; test -f got/deep/er/f1; echo x >got/f1; test -L c/n; echo y >c/n/f";
  for (const auto* store : {native_.get(), mounted_.get()}) {
    const Ran built = store->build("x", "base", script, options);
    EXPECT_EQ(built.status, 0) << built.output;
    EXPECT_EQ(shell("cat caches/npm/f", store->mnt()).output, "y\n");
  }
  expectSame(result(*native_, "x"), result(*mounted_, "x"));
}

TEST_P(BothWays, AnyUsersCommandHasItsOwnRights) {
  const char* script =
      "id -u; echo x >open.d/new; echo y >f 2>/dev/null && exit 9; cat a/none 2>/dev/null && exit "
      "8;"
      "rm -f a/f1 2>/dev/null; test -e a/f1";
  for (const auto* store : {native_.get(), mounted_.get()}) {
    const Ran built = store->build("x", "base", script, "--user 1000:1001");
    EXPECT_EQ(built.status, 0) << built.output;
  }
  expectSame(result(*native_, "x"), result(*mounted_, "x"));
}

INSTANTIATE_TEST_SUITE_P(Modes, BothWays, ::testing::ValuesIn(kModes),
                         [](const auto& mode) { return std::string(mode.param); });

}  // namespace
}  // namespace kilnfs::testing
