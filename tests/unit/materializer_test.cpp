// Results between being saved and being plain: they are served, built on, deleted, and never lost.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "store/store.h"
#include "store/tree/tree.h"
#include "tests/support/meanwhile.h"
#include "tests/support/names.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tree_editor.h"

namespace kilnfs {
namespace {

using testing::Editor;
using testing::entries;
using testing::exists;
using testing::readFile;
using testing::readIn;
using testing::TempDir;
using testing::writeFile;

using testing::id;

// Nothing is made plain while result/ can't be written to: the test decides when.
class MaterializerTest : public ::testing::TestWithParam<Mode> {
 protected:
  MaterializerTest() {
    open();
    EXPECT_TRUE(build("base", {}, [](Editor& e) {
      e.mkdir("a");
      e.mkdir("a/deep");
      e.mkdir("a/deep/er");
      e.mkdir("b");
      e.write("a/file", "one");
      e.write("a/deep/file", "two");
      e.write("a/deep/er/file", "three");
      e.write("b/linked", "linked");
      e.link("b/linked", "a/deep/also");
    }));
  }
  ~MaterializerTest() override {
    letGo();
    EXPECT_TRUE(settle());
    EXPECT_EQ(entries(dir_ / "store/result-tmp"), 0U) << "nothing is left behind";
  }
  void open() {
    store_.reset();
    auto made = Store::create(dir_ / "store", {GetParam(), "", false});
    ASSERT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
  }
  Status build(const std::string& name, const std::optional<std::string>& base,
               const std::function<void(Editor&)>& edit) {
    Interrupt interrupt;
    return store_->build(id(name), base ? std::optional(id(*base)) : std::nullopt, User{},
                         interrupt, [&](const auto& tmp) -> Status {
                           Editor editor(tmp);
                           edit(editor);
                           return {};
                         });
  }
  /// A file in the way of result/<name>: until letGo() it can't be made plain.
  void holdUp(const std::string& name) {
    held_.push_back(dir_ / ("store/result/" + name));
    writeFile(held_.back(), "");
  }
  void letGo() {
    for (const std::string& path : held_) std::filesystem::remove(path);
    held_.clear();
  }
  bool settle() { return store_->completeDeletes().has_value(); }
  std::shared_ptr<Tree> tree(const std::string& name) {
    return Tree::create(*store_->result(id(name)), 0);
  }
  std::string result(const std::string& path) const { return dir_ / ("store/result/" + path); }

  TempDir dir_;
  std::unique_ptr<Store> store_;
  std::vector<std::string> held_;
};

TEST_P(MaterializerTest, ASealedResultReadsAsAPlainOne) {
  holdUp("x");
  ASSERT_TRUE(build("x", "base", [](Editor& e) {
    e.write("a/file", "changed");
    e.rename("a/deep", "b/moved");
  }));
  EXPECT_TRUE(store_->hasResult(id("x")));
  EXPECT_EQ(store_->sealedResults(), std::vector<std::string>{"x"});
  const auto read = [&](Tree& t) {
    EXPECT_EQ(readIn(t, "a/file"), "changed");
    EXPECT_EQ(readIn(t, "b/moved/er/file"), "three");
    EXPECT_EQ(readIn(t, "b/moved/also"), "linked");
    EXPECT_EQ(readIn(t, "a/deep"), "(none)");
  };
  const auto before = tree("x");
  read(*before);
  EXPECT_FALSE(store_->completeDeletes()) << "something is in the way";
  letGo();
  ASSERT_TRUE(settle());
  EXPECT_TRUE(store_->sealedResults().empty());
  EXPECT_EQ(readFile(result("x/b/moved/er/file")), "three");
  read(*before);
  const auto root = before->root();
  EXPECT_EQ(root->attributes.st_ino, Tree::rootIno("results/x"));
}

TEST_P(MaterializerTest, WhatIsBuiltAnewMeanwhileIsAnotherTree) {
  ASSERT_EQ(tree("base")
                ->lookup(*testing::splitIn(*tree("base"), "b/linked").first, "linked")
                ->attributes.st_nlink,
            2U);  // counted
  const testing::Meanwhile anew("result.counted", [&] {
    EXPECT_TRUE(store_->remove(id("x"), false));
    EXPECT_TRUE(build("x", {}, [](Editor& e) {
      e.write("one", "one");
      e.link("one", "other");
    }));
  });
  ASSERT_TRUE(build("x", "base", [](Editor& e) { e.write("a/file", "changed"); }));
  ASSERT_TRUE(settle());
  EXPECT_EQ(readFile(result("x/one")), "one");
  for (int i = 0; i < 70; ++i) {  // more results than are kept in mind
    const auto t = tree("x");
    ASSERT_EQ(t->lookup(*t->root()->inode, "one")->attributes.st_nlink, 2U) << i;
    ASSERT_TRUE(build("more" + std::to_string(i), {}, [](Editor&) {}));
  }
}

// What made it fail may be mended by now.
TEST_P(MaterializerTest, ATryThatWasUnderWayDoesNotCountForWhoComes) {
  std::thread waiter;
  bool waited = false;
  const testing::Meanwhile fails("result.plain", [&] {
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "store/result-tmp")) {
      if (!entry.path().filename().string().starts_with("plain.")) continue;
      std::filesystem::rename(entry.path(), dir_ / "taken away");
    }
    waiter = std::thread([&] { waited = settle(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  });
  ASSERT_TRUE(build("x", "base", [](Editor& e) { e.write("a/file", "changed"); }));
  (void)settle();
  ASSERT_TRUE(waiter.joinable());
  waiter.join();
  EXPECT_TRUE(waited);
  EXPECT_EQ(readFile(result("x/a/file")), "changed");
}

TEST_P(MaterializerTest, ListingsAndLookupsOfASealedResultAgree) {
  holdUp("x");
  ASSERT_TRUE(build("x", "base", [](Editor& e) { e.write("a/new", "new"); }));
  const auto t = tree("x");
  const auto parent = testing::splitIn(*t, "a/file").first;
  std::map<std::string, uint64_t> numbers;
  ASSERT_TRUE(t->readDirectory(*parent, 0, [&](const Tree::Item& item) {
    if (item.name[0] != '.') numbers[item.name] = item.ino;
    return true;
  }));
  EXPECT_EQ(numbers.size(), 3U);
  for (const auto& [child, ino] : numbers) {
    const auto entry = t->lookup(*parent, child);
    ASSERT_TRUE(entry) << child;
    EXPECT_EQ(entry->attributes.st_ino, ino) << child;
  }
}

TEST_P(MaterializerTest, LinksAreKnownWithoutAWalkOnceItIsPlain) {
  ASSERT_TRUE((*store_->result(id("base")))->hasLinks());  // of what is imported somebody counts
  ASSERT_TRUE(build("x", "base", [](Editor& e) {
    e.write("own", "linked");
    e.mkdir("n");
    e.link("own", "n/1");
    e.link("own", "n/2");
    e.remove("b/linked");
    e.link("a/deep/also", "third");
    e.link("a/deep/also", "n/fourth");
  }));
  ASSERT_TRUE(settle());
  const auto known = (*store_->result(id("x")))->knownLinks();
  ASSERT_TRUE(known);
  EXPECT_EQ(known->size(), 2U);
  for (const auto& [path, names] : {std::pair("x/n/2", 3U), std::pair("x/third", 3U)}) {
    struct stat st = {};
    ASSERT_EQ(::lstat(result(path).c_str(), &st), 0);
    const auto found = known->find(backingId(st));
    ASSERT_NE(found, known->end()) << path;
    EXPECT_EQ(found->second, names) << path;
  }
}

TEST_P(MaterializerTest, ResultsAreBuiltOnSealedOnes) {
  for (const char* name : {"x", "y", "z"}) holdUp(name);
  ASSERT_TRUE(build("x", "base", [](Editor& e) { e.write("a/file", "x"); }));
  ASSERT_TRUE(build("y", "x", [](Editor& e) { e.write("a/deep/er/file", "y"); }));
  ASSERT_TRUE(build("z", "y", [](Editor& e) {
    e.write("b/linked", "z");
    e.rename("a", "c");
  }));
  const auto read = [&](const std::function<std::string(const std::string&)>& get) {
    EXPECT_EQ(get("c/file"), "x");
    EXPECT_EQ(get("c/deep/er/file"), "y");
    EXPECT_EQ(get("c/deep/file"), "two");
    EXPECT_EQ(get("c/deep/also"), "z");
    EXPECT_EQ(get("b/linked"), "z");
  };
  read([t = tree("z")](const std::string& path) { return readIn(*t, path); });
  store_.reset();  // as far as it goes; the rest is for the next start
  letGo();
  open();
  read([t = tree("z")](const std::string& path) { return readIn(*t, path); });
  ASSERT_TRUE(store_->completeDeletes());
  read([&](const std::string& path) { return readFile(result("z/" + path)); });
  EXPECT_EQ(readFile(result("x/a/file")), "x");
  EXPECT_EQ(readFile(result("x/a/deep/er/file")), "three");
  EXPECT_EQ(readFile(result("y/b/linked")), "linked");
  struct stat one = {};
  struct stat two = {};
  ASSERT_EQ(::stat(result("z/c/deep/also").c_str(), &one), 0);
  ASSERT_EQ(::stat(result("z/b/linked").c_str(), &two), 0);
  EXPECT_EQ(one.st_ino, two.st_ino) << "hard links within the tree";
}

// A directory of x is referred to as it is, with what x has elsewhere below it.
TEST_P(MaterializerTest, AKeptDirectoryOfASealedResultHasItsPlaceholders) {
  for (const char* name : {"x", "y"}) holdUp(name);
  ASSERT_TRUE(build("x", "base", [](Editor& e) { e.write("a/new", "x"); }));
  ASSERT_TRUE(build("y", "x", [](Editor& e) { e.write("top", "y"); }));
  const auto t = tree("y");
  // By way of the directory, as the mount does it.
  const InodePtr a = t->lookup(*t->root()->inode, "a")->inode;
  std::map<std::string, uint64_t> numbers;
  ASSERT_TRUE(t->readDirectory(*a, 0, [&](const Tree::Item& item) {
    numbers[item.name] = item.ino;
    return true;
  }));
  const auto deep = t->lookup(*a, "deep");
  ASSERT_TRUE(deep);
  EXPECT_EQ(deep->attributes.st_mode & 0777, 0755U);
  EXPECT_EQ(deep->attributes.st_ino, numbers["deep"]);
  EXPECT_EQ(readIn(*t, "a/deep/file"), "two");
  EXPECT_EQ(readIn(*t, "a/deep/er/file"), "three");
}

// So that such a build costs the same whatever its base holds.
TEST_P(MaterializerTest, AResultThatChangedNothingIsItsBaseUntilItIsPlain) {
  for (const char* name : {"x", "y", "z"}) holdUp(name);
  const auto nothing = [](Editor& e) { EXPECT_EQ(e.read("a/file"), "one"); };
  ASSERT_TRUE(build("x", "base", nothing));
  ASSERT_TRUE(build("y", "x", nothing));
  for (const auto& tree : std::filesystem::directory_iterator(dir_ / "store/result-tmp")) {
    if (tree.path().filename().string().starts_with("build.")) {
      EXPECT_EQ(entries(tree.path()), 0U) << tree.path();
    }
  }
  ASSERT_TRUE(build("z", "y", [](Editor& e) {
    e.write("a/file", "z");
    e.rename("b", "a/c");
  }));
  const auto read = [](const std::function<std::string(const std::string&, const char*)>& get) {
    EXPECT_EQ(get("y", "a/file"), "one");
    EXPECT_EQ(get("y", "b/linked"), "linked");
    EXPECT_EQ(get("z", "a/file"), "z");
    EXPECT_EQ(get("z", "a/c/linked"), "linked");
    EXPECT_EQ(get("z", "a/deep/er/file"), "three");
  };
  const auto served = [this](const std::string& name, const char* path) {
    return readIn(*tree(name), path);
  };
  read(served);
  EXPECT_EQ(tree("x")->root()->attributes.st_ino, Tree::rootIno("results/x"));
  EXPECT_EQ(tree("y")->root()->attributes.st_ino, Tree::rootIno("results/y"));
  EXPECT_EQ(store_->remove(id("base"), false).error().code, ENOTEMPTY) << "it is needed";
  store_.reset();
  open();
  EXPECT_EQ(store_->sealedResults().size(), 3U);
  read(served);
  letGo();
  ASSERT_TRUE(settle());
  read([this](const std::string& name, const char* path) {
    return readFile(result(name + "/" + path));
  });
  Interrupt interrupt;
  ASSERT_TRUE(store_->completeRecords(interrupt));
  const auto verified = store_->verify({}, false, interrupt);
  ASSERT_TRUE(verified);
  for (const Verified& each : *verified) {
    EXPECT_EQ(actionName(each.action), "ok") << each.id << each.why;
  }
}

TEST_P(MaterializerTest, ARootWhoseAttributesWereChangedIsOwn) {
  for (const char* name : {"mode", "time", "attribute"}) holdUp(name);
  const auto change = [this](const char* name, const std::function<int(const char*)>& call) {
    Interrupt interrupt;
    ASSERT_TRUE(store_->build(id(name), id("base"), User{}, interrupt, [&](const auto& tmp) {
      EXPECT_EQ(call(tmp->path().c_str()), 0) << name;
      return Status();
    }));
  };
  change("mode", [](const char* path) { return ::chmod(path, 0711); });
  const struct timespec times[2] = {{0, UTIME_OMIT}, {1, 2}};
  change("time", [&](const char* path) { return ::utimensat(AT_FDCWD, path, times, 0); });
  change("attribute", [](const char* path) { return ::setxattr(path, "user.a", "b", 1, 0); });
  EXPECT_EQ(tree("mode")->root()->attributes.st_mode & 07777, 0711U);
  EXPECT_EQ(tree("time")->root()->attributes.st_mtim.tv_nsec, 2);
  EXPECT_EQ(readIn(*tree("attribute"), "a/deep/file"), "two");
  letGo();
  ASSERT_TRUE(settle());
  struct stat st = {};
  ASSERT_EQ(::stat(result("mode").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0711U);
  ASSERT_EQ(::stat(result("time").c_str(), &st), 0);
  EXPECT_EQ(st.st_mtim.tv_nsec, 2);
  char value[8];
  EXPECT_EQ(::getxattr(result("attribute").c_str(), "user.a", value, sizeof value), 1);
}

TEST_P(MaterializerTest, ASealedResultCanBeDeleted) {
  for (const char* name : {"x", "y"}) holdUp(name);
  ASSERT_TRUE(build("x", "base", [](Editor& e) { e.write("a/file", "x"); }));
  ASSERT_TRUE(build("y", "x", [](Editor& e) { e.write("a/file", "y"); }));
  EXPECT_EQ(store_->remove(id("base"), false).error().code, ENOTEMPTY) << "it is needed";
  EXPECT_EQ(store_->remove(id("x"), false).error().code, ENOTEMPTY);
  ASSERT_TRUE(store_->remove(id("base"), true));
  for (const char* name : {"base", "x", "y"}) EXPECT_FALSE(store_->hasResult(id(name))) << name;
  ASSERT_TRUE(store_->completeDeletes());
}

TEST_P(MaterializerTest, OneWhoseBaseWasTakenAwayIsDroppedAtTheStart) {
  holdUp("x");
  ASSERT_TRUE(build("x", "base", [](Editor& e) { e.write("a/file", "x"); }));
  store_.reset();
  letGo();
  std::filesystem::remove_all(result("base"));
  open();
  EXPECT_FALSE(store_->hasResult(id("x")));
  EXPECT_EQ(store_->info(id("x")).error().code, ENOENT);
}

TEST_P(MaterializerTest, WhatIsMadePlainIsSharedAsTheModeSays) {
  ASSERT_TRUE(build("x", "base", [](Editor& e) { e.write("a/file", "x"); }));
  ASSERT_TRUE(store_->completeDeletes());
  for (const char* path : {"/a/deep/file", "/a/deep/er/file", "/b/linked"}) {
    struct stat one = {};
    struct stat two = {};
    ASSERT_EQ(::stat(result(std::string("base") + path).c_str(), &one), 0);
    ASSERT_EQ(::stat(result(std::string("x") + path).c_str(), &two), 0);
    EXPECT_EQ(one.st_ino == two.st_ino, GetParam() == Mode::hardlink) << path;
    EXPECT_EQ(one.st_mtim.tv_nsec, two.st_mtim.tv_nsec) << path;
  }
}

TEST_P(MaterializerTest, AChainOfManyIsAsDeepAsOne) {
  constexpr int kLength = 30;
  std::string last = "base";
  for (int i = 0; i < kLength; ++i) {
    const std::string name = "n" + std::to_string(i);
    ASSERT_TRUE(build(name, last, [&](Editor& e) {
      e.write("b/" + name, name);
      EXPECT_EQ(e.read("a/deep/er/file"), "three");
      EXPECT_EQ(e.read("b/linked"), "linked");
    }));
    last = name;
  }
  ASSERT_TRUE(store_->completeDeletes());
  EXPECT_EQ(entries(result(last + "/b")), 1U + kLength);
}

INSTANTIATE_TEST_SUITE_P(Modes, MaterializerTest, ::testing::Values(Mode::copy, Mode::hardlink),
                         [](const auto& test) { return modeName(test.param); });

}  // namespace
}  // namespace kilnfs
