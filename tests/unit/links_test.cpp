// Hard links between results come to an end where the file system allows no more (ext4: 65,000).
// The names that a file has inside one tree are one file all the same.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "store/store.h"
#include "tests/support/full_links.h"
#include "tests/support/names.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tree_editor.h"

namespace kilnfs {
namespace {

using testing::Editor;
using testing::entries;
using testing::id;
using testing::readFile;
using testing::splitIn;
using testing::TempDir;
using testing::writeFile;

const std::vector<std::string> kNames = {"a/1", "b/2", "c/3", "top", "top2"};

class LinksTest : public ::testing::TestWithParam<unsigned> {
 protected:
  LinksTest() {
    open();
    EXPECT_TRUE(store_->build(id("base"), {}, User{}, interrupt_, [&](const auto& tmp) -> Status {
      fill(tmp->path());
      return {};
    }));
    leaveLinks(result("base/a/1"), GetParam());
    leaveLinks(result("base/d/single"), 0);
  }
  ~LinksTest() override {
    EXPECT_TRUE(store_->completeDeletes());
    EXPECT_EQ(entries(dir_ / "store/result-tmp"), 0U) << "nothing is left behind";
    EXPECT_EQ(entries(dir_ / "store/cache-tmp"), 0U);
    areOneFile(result("base"), "linked");
  }
  void open() {
    auto made = Store::create(dir_ / "store", {Mode::hardlink, "", false});
    ASSERT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
  }
  static void fill(const std::string& root) {
    for (const char* d : {"/a", "/b", "/c", "/d", "/e"})
      std::filesystem::create_directory(root + d);
    writeFile(root + "/a/1", "linked");
    writeFile(root + "/d/single", "single");
    writeFile(root + "/e/kept", "kept");
    for (const std::string& name : kNames) {
      if (name != "a/1") std::filesystem::create_hard_link(root + "/a/1", root + "/" + name);
    }
  }

  void leaveLinks(const std::string& file, unsigned free) const {
    testing::leaveLinks(file, free, dir_.path());
  }
  Status build(const std::string& name, const std::string& base,
               const std::function<void(Editor&, const std::shared_ptr<Workspace>&)>& edit) {
    const Status done =
        store_->build(id(name), id(base), User{}, interrupt_, [&](const auto& tmp) -> Status {
          Editor editor(tmp);
          edit(editor, tmp);
          return {};
        });
    return done ? store_->completeDeletes() : done;
  }
  /// Of a tree on disk.
  static void areOneFile(const std::string& root, const std::string& content) {
    std::set<ino_t> inodes;
    for (const std::string& each : kNames) {
      struct stat st = {};
      ASSERT_EQ(::stat((root + "/" + each).c_str(), &st), 0) << each;
      inodes.insert(st.st_ino);
      EXPECT_EQ(readFile(root + "/" + each), content) << each;
    }
    EXPECT_EQ(inodes.size(), 1U) << root << ": the names were parted";
  }
  /// As the mount shows it.
  static void showAsOneFile(const std::shared_ptr<Tree>& tree) {
    std::set<uint64_t> numbers;
    for (const std::string& each : kNames) {
      const auto [parent, name] = splitIn(*tree, each);
      const auto entry = tree->lookup(*parent, name);
      ASSERT_TRUE(entry) << each;
      numbers.insert(entry->attributes.st_ino);
      EXPECT_EQ(entry->attributes.st_nlink, kNames.size()) << each;
    }
    EXPECT_EQ(numbers.size(), 1U);
  }
  void isWhole(const std::string& name, const std::string& content = "linked") {
    ASSERT_TRUE(store_->hasResult(id(name)));
    areOneFile(result(name), content);
    showAsOneFile(Tree::create(*store_->result(id(name)), 0));
    EXPECT_EQ(readFile(result(name + "/d/single")), "single");
    EXPECT_EQ(readFile(result(name + "/e/kept")), "kept");
  }
  std::string result(const std::string& path) const { return dir_ / ("store/result/" + path); }

  TempDir dir_;
  std::unique_ptr<Store> store_;
  Interrupt interrupt_;
};

TEST_P(LinksTest, OfAResultThatIsMadePlain) {
  ASSERT_TRUE(build("x", "base", [](Editor& e, const auto&) { e.write("d/new", "new"); }));
  isWhole("x");
  // What is known of its links is carried on.
  ASSERT_TRUE(build("y", "x", [](Editor& e, const auto&) { e.write("b/2", "changed"); }));
  isWhole("y", "changed");
  isWhole("x");
}

TEST_P(LinksTest, OfAResultThatTheNextStartMakesPlain) {
  writeFile(result("x"), "in the way");
  EXPECT_FALSE(build("x", "base", [](Editor& e, const auto&) {
    e.write("b/new", "new");
    e.write("d/new", "new");
  })) << "it is saved, but can't be made plain";
  store_.reset();
  std::filesystem::remove(result("x"));
  open();
  ASSERT_TRUE(store_->completeDeletes());
  isWhole("x");
}

TEST_P(LinksTest, OfACacheThatIsPublished) {
  const CacheName npm = *CacheName::parse("npm");
  const std::string cached = dir_ / "store/cache/npm";
  const auto publish = [&](const std::function<void(Editor&)>& edit) {
    auto lease = store_->cache(User{}, npm);
    ASSERT_TRUE(lease);
    Editor editor(lease->workspace);
    edit(editor);
    const auto released = store_->release(*lease, false, "me");
    ASSERT_TRUE(released);
    EXPECT_EQ(released->outcome, Release::Outcome::published);
    EXPECT_TRUE(store_->completeDeletes());
  };
  auto first = store_->cache(User{}, npm);
  ASSERT_TRUE(first);
  Editor(first->workspace).write("seed", "seed");
  fill(first->workspace->path());
  ASSERT_TRUE(store_->release(*first, false, "me"));
  leaveLinks(cached + "/a/1", GetParam());
  publish([](Editor& e) {
    e.write("a/new", "new");
    e.write("b/new", "new");
  });
  areOneFile(cached, "linked");
  publish([](Editor& e) { e.write("c/3", "changed"); });
  areOneFile(cached, "changed");
}

TEST_P(LinksTest, OfAResultThatIsItsBase) {
  ASSERT_TRUE(build("x", "base", [](Editor&, const auto&) {}));
  isWhole("x");
}

TEST_P(LinksTest, OfAResultWhoseRootAloneIsOwnBeforeItIsPlain) {
  writeFile(result("x"), "in the way");
  EXPECT_FALSE(build("x", "base", [](Editor&, const auto& tmp) {
    ASSERT_EQ(::chmod(tmp->path().c_str(), 0711), 0);
  })) << "it is saved, but can't be made plain";
  const auto tree = Tree::create(*store_->result(id("x")), 0);
  showAsOneFile(tree);
  EXPECT_EQ(testing::readIn(*tree, "d/single"), "single");
  EXPECT_EQ(testing::readIn(*tree, "e/kept"), "kept");
  const auto [root, name] = splitIn(*tree, "e");
  EXPECT_EQ(tree->lookup(*root, name)->attributes.st_mode & 07777, 0755U);
  std::filesystem::remove(result("x"));
  ASSERT_TRUE(store_->completeDeletes());
  isWhole("x");
}

TEST_P(LinksTest, OfDirectoriesThatBecomeOwn) {
  ASSERT_TRUE(build("x", "base", [](Editor& e, const auto& tmp) {
    const auto tree = Tree::create(tmp, 0);
    for (const char* path : {"a/new", "b/new"}) {
      e.write(path, "new");
      showAsOneFile(tree);
    }
  }));
  isWhole("x");
}

TEST_P(LinksTest, OfAFileThatIsChanged) {
  ASSERT_TRUE(build("x", "base", [](Editor& e, const auto& tmp) {
    e.write("a/1", "changed");
    e.write("b/new", "new");
    for (const std::string& name : kNames) EXPECT_EQ(e.read(name), "changed") << name;
    e.write("c/new", "new");
    e.write("c/3", "changed again");
    for (const std::string& name : kNames) EXPECT_EQ(e.read(name), "changed again") << name;
    showAsOneFile(Tree::create(tmp, 0));
  }));
  isWhole("x", "changed again");
}

TEST_P(LinksTest, OfAFileThatIsChangedAndGetsMore) {
  ASSERT_TRUE(build("x", "base", [](Editor& e, const auto&) {
    e.write("a/1", "changed");
    e.link("b/2", "d/6");
    e.link("a/1", "d/7");
    e.write("c/new", "new");
  }));
  areOneFile(result("x"), "changed");
  struct stat st = {};
  ASSERT_EQ(::stat(result("x/d/7").c_str(), &st), 0);
  EXPECT_EQ(st.st_nlink, kNames.size() + 2);
  const auto tree = Tree::create(*store_->result(id("x")), 0);
  const auto [parent, name] = splitIn(*tree, "d/7");
  EXPECT_EQ(tree->lookup(*parent, name)->attributes.st_nlink, kNames.size() + 2);
}

TEST_P(LinksTest, OfAFileThatIsOpen) {
  ASSERT_TRUE(build("x", "base", [](Editor&, const auto& tmp) {
    const auto tree = Tree::create(tmp, 0);
    const auto [parent, name] = splitIn(*tree, "c/3");
    const auto reader = tree->open(*tree->lookup(*parent, name)->inode, O_RDONLY, true);
    ASSERT_TRUE(reader);
    const Creator me{::geteuid(), ::getegid(), 022};
    for (const char* path : {"a", "b", "c"}) {
      ASSERT_TRUE(tree->mkdir(*splitIn(*tree, std::string(path) + "/").first, "new", 0755, me));
    }
    const auto writer = tree->open(*tree->lookup(*tree->root()->inode, "top")->inode, O_RDWR, true);
    ASSERT_TRUE(writer);
    ASSERT_EQ(::pwrite((*writer)->fd(), "LINKED", 6, 0), 6);
    char seen[7] = {};
    ASSERT_EQ(::pread((*reader)->fd(), seen, 6, 0), 6);
    EXPECT_STREQ(seen, "LINKED") << "whoever has it open sees what is written";
  }));
  isWhole("x", "LINKED");
}

using LinksOfTwo = LinksTest;
INSTANTIATE_TEST_SUITE_P(OneFree, LinksOfTwo, ::testing::Values(1U));

// Both are replaced while the result is sealed, and their number of names has changed before.
TEST_P(LinksOfTwo, FullFilesThatHaveLostAName) {
  ASSERT_TRUE(store_->build(id("two"), {}, User{}, interrupt_, [&](const auto& tmp) -> Status {
    const std::string root = tmp->path();
    for (const char* d : {"/r", "/s", "/t"}) std::filesystem::create_directory(root + d);
    for (const std::string file : {"/one", "/two", "/changed"}) {
      writeFile(root + "/r" + file, file);
      for (const char* d : {"/s", "/t"}) {
        std::filesystem::create_hard_link(root + "/r" + file, root + d + file);
      }
    }
    std::filesystem::rename(root + "/r/changed", root + "/changed");
    return {};
  }));
  for (const std::string file : {"one", "two"}) {
    leaveLinks(result("two/r/" + file), GetParam());
  }
  const Status done = build("x", "two", [](Editor& e, const auto&) {
    e.remove("r/one");
    e.remove("r/two");
    // So the directories of its other names can't be taken over as they are.
    e.write("changed", "changed");
  });
  ASSERT_TRUE(done) << done.error().message;
  for (const std::string file : {"one", "two"}) {
    struct stat s = {};
    struct stat t = {};
    ASSERT_EQ(::stat(result("x/s/" + file).c_str(), &s), 0);
    ASSERT_EQ(::stat(result("x/t/" + file).c_str(), &t), 0);
    EXPECT_EQ(s.st_ino, t.st_ino) << file;
    EXPECT_EQ(readFile(result("x/s/" + file)), "/" + file);
  }
  EXPECT_EQ(readFile(result("x/t/changed")), "changed");
}

INSTANTIATE_TEST_SUITE_P(Free, LinksTest, ::testing::Values(0U, 1U, 3U),
                         [](const auto& free) { return fmt::format("{}Free", free.param); });

}  // namespace
}  // namespace kilnfs
