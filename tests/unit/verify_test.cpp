// Manifests, and results that are not what was recorded of them any more.
#include <SQLiteCpp/SQLiteCpp.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>

#include "store/copy_node.h"
#include "store/manifest_compare.h"
#include "store/store.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using ::testing::ElementsAre;
using testing::entries;
using testing::exists;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::readFile;
using testing::TempDir;
using testing::writeFile;

UniqueFd openDirectory(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

std::string odd() {
  return std::string("odd \n\\=\xff") + "name";
}

/// A tree with all kinds of entries, and its manifest.
class ManifestTest : public ::testing::Test {
 protected:
  ManifestTest() {
    ::umask(022);
    for (const char* directory : {"t", "t/d", "t/d/deep", "t/empty"}) {
      EXPECT_EQ(::mkdir((dir_ / directory).c_str(), 0755), 0);
    }
    writeFile(at("file"), "content");
    writeFile(at("d/inner"), std::string(300000, 'x'));
    writeFile(at("d/deep/" + odd()), "odd");
    writeFile(at("d-sibling"), "between d and d/ as bytes go");
    EXPECT_EQ(::link(at("file").c_str(), at("linked").c_str()), 0);
    EXPECT_EQ(::symlink("nowhere\n", at("link").c_str()), 0);
    EXPECT_EQ(::mkfifo(at("fifo").c_str(), 0600), 0);
    hasXattrs_ = ::setxattr(at("file").c_str(), "user.k", "a\0b\n", 4, 0) == 0;
  }
  std::string at(const std::string& below) const { return dir_ / ("t/" + below); }
  std::string manifest() const { return dir_ / "manifest"; }

  void record() {
    UniqueFd out(::open(manifest().c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    ManifestWriter writer(std::move(out), 12, 34);
    Describer describer;
    TreeWalk walk(openDirectory(dir_ / "t"));
    TreeWalk::Item item;
    for (;;) {
      auto more = walk.next(item);
      ASSERT_TRUE(more) << more.error().message;
      if (!*more) break;
      auto entry = describer.describe(item, walk.path(), interrupt_);
      ASSERT_TRUE(entry) << entry.error().message;
      writer.add(*entry);
    }
    ASSERT_TRUE(writer.finish());
  }
  std::vector<std::string> compare() {
    auto reader = ManifestReader::open(manifest());
    EXPECT_TRUE(reader) << reader.error().message;
    if (!reader) return {"no manifest"};
    auto found = compareWithManifest(*reader, openDirectory(dir_ / "t"), interrupt_);
    EXPECT_TRUE(found) << found.error().message;
    return found ? *found : std::vector<std::string>{"failed"};
  }
  /// Keeps the time that a change would show.
  void keepingTimes(const std::string& path, const std::function<void()>& change) {
    struct stat st = {};
    ASSERT_EQ(::lstat(path.c_str(), &st), 0);
    change();
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
  }

  TempDir dir_;
  Interrupt interrupt_;
  bool hasXattrs_ = false;
};

TEST_F(ManifestTest, TheSameTreeIsTheSame) {
  record();
  EXPECT_THAT(compare(), IsEmpty());
  auto reader = ManifestReader::open(manifest());
  ASSERT_TRUE(reader);
  EXPECT_EQ(reader->created(), 12);
  EXPECT_EQ(reader->recorded(), 34);
  size_t count = 0;
  bool foundOdd = false;
  for (auto entry = reader->next(); *entry; entry = reader->next()) {
    count += (*entry)->type != 'u' ? 1 : 0;
    foundOdd = foundOdd || (*entry)->name == odd();
  }
  EXPECT_EQ(count, 11U);
  EXPECT_TRUE(foundOdd);
}

TEST_F(ManifestTest, CapabilitiesWithoutAValueCanBeSetButNotRead) {
  EXPECT_EQ(::setxattr(at("file").c_str(), "security.capability", "", 0, 0) == 0, ::geteuid() == 0);
  record();
  EXPECT_THAT(compare(), IsEmpty());
  const UniqueFd from(::open(at("file").c_str(), O_PATH | O_CLOEXEC));
  EXPECT_TRUE(copyNode(from.get(), openDirectory(dir_ / "t").get(), "copy"));
  EXPECT_EQ(::listxattr(at("copy").c_str(), nullptr, 0),
            ::listxattr(at("file").c_str(), nullptr, 0));
}

TEST_F(ManifestTest, ContentIsComparedByteByByte) {
  record();
  keepingTimes(at("d/inner"), [&] {
    const UniqueFd fd(::open(at("d/inner").c_str(), O_WRONLY | O_CLOEXEC));
    ASSERT_EQ(::pwrite(fd.get(), "y", 1, 299999), 1);
  });
  EXPECT_THAT(compare(), ElementsAre("'d/inner' has other content"));
}

TEST_F(ManifestTest, SizesTimesModesOwnersTargetsAttributes) {
  record();
  keepingTimes(at("d/inner"), [&] { ASSERT_EQ(::truncate(at("d/inner").c_str(), 5), 0); });
  EXPECT_THAT(compare(), ElementsAre("'d/inner' has 5 bytes, had 300000"));
  record();
  ASSERT_EQ(::chmod(at("d").c_str(), 0700), 0);
  EXPECT_THAT(compare(), ElementsAre("'d' has mode 700, had 755"));
  record();
  const struct timespec times[2] = {{1, 0}, {1, 5}};
  ASSERT_EQ(::utimensat(AT_FDCWD, at("file").c_str(), times, 0), 0);
  ASSERT_EQ(compare().size(), 1U);
  EXPECT_THAT(compare()[0], HasSubstr("'file' was modified at 1.000000005, not "));
  record();
  keepingTimes(dir_ / "t", [&] {
    keepingTimes(at("link"), [&] {
      ASSERT_EQ(::unlink(at("link").c_str()), 0);
      ASSERT_EQ(::symlink("elsewhere", at("link").c_str()), 0);
    });
  });
  EXPECT_THAT(compare(), ElementsAre("'link' leads to 'elsewhere', led to 'nowhere\\x0a'"));
  if (hasXattrs_) {
    record();
    ASSERT_EQ(::setxattr(at("file").c_str(), "user.k", "ab", 2, 0), 0);
    EXPECT_THAT(compare(), ElementsAre("'file' has other extended attributes"));
  }
  if (::geteuid() == 0) {
    record();
    ASSERT_EQ(::chown(at("fifo").c_str(), 7, 8), 0);
    EXPECT_THAT(compare(), ElementsAre("'fifo' belongs to 7:8, belonged to 0:0"));
  }
}

TEST_F(ManifestTest, WhatIsMissingAndWhatIsMore) {
  record();
  keepingTimes(dir_ / "t", [&] { std::filesystem::remove_all(at("d")); });
  EXPECT_THAT(compare(), ElementsAre("'d' is missing"));
  record();
  keepingTimes(dir_ / "t", [&] {
    ASSERT_EQ(::mkdir(at("b").c_str(), 0755), 0);
    writeFile(at("b/inner"), "");
    writeFile(at("zz"), "");
  });
  EXPECT_THAT(compare(), ElementsAre("'b' was not there", "'zz' was not there"));
  record();
  keepingTimes(dir_ / "t", [&] {
    keepingTimes(at("b"), [&] {
      std::filesystem::remove_all(at("b"));
      writeFile(at("b"), "a file now");
      ASSERT_EQ(::unlink(at("zz").c_str()), 0);
      ASSERT_EQ(::mkdir(at("zz").c_str(), 0755), 0);
    });
  });
  EXPECT_THAT(compare(),
              ElementsAre("'b' is a file, was a directory", "'zz' is a directory, was a file"));
}

TEST_F(ManifestTest, AFileThatIsNoLinkAnyMore) {
  record();
  keepingTimes(dir_ / "t", [&] {
    keepingTimes(at("linked"), [&] {
      ASSERT_EQ(::unlink(at("linked").c_str()), 0);
      writeFile(at("linked"), "content");
    });
  });
  EXPECT_THAT(compare(), ElementsAre("'linked' is a hard link of another file"));
}

TEST_F(ManifestTest, OnlyTheFirstDifferencesAreTold) {
  record();
  for (int i = 0; i < 20; ++i) writeFile(at("more" + std::to_string(i)), "");
  EXPECT_EQ(compare().size(), 5U);
}

TEST_F(ManifestTest, ATreeDeeperThanPathsCanBe) {
  UniqueFd above = openDirectory(dir_ / "t");
  const std::string name(200, 'd');
  for (int i = 0; i < 400; ++i) {
    ASSERT_EQ(::mkdirat(above.get(), name.c_str(), 0755), 0);
    above.reset(::openat(above.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(above.valid());
  }
  record();
  EXPECT_THAT(compare(), IsEmpty());
  ASSERT_EQ(::mkdirat(above.get(), "x", 0755), 0);
  EXPECT_EQ(compare().size(), 2U) << "the directory, and the time of the one that it is in";
}

TEST_F(ManifestTest, ADamagedManifestIsNotBelieved) {
  record();
  const std::string good = readFile(manifest());
  for (const size_t place : {size_t{0}, good.size() / 2, good.size() - 2}) {
    std::string bad = good;
    bad[place] = bad[place] == 'a' ? 'b' : 'a';
    writeFile(manifest(), bad);
    EXPECT_EQ(ManifestReader::open(manifest()).error().code, EBADMSG) << place;
  }
  for (const size_t size : {size_t{0}, good.size() / 2, good.size() - 1}) {
    writeFile(manifest(), good.substr(0, size));
    EXPECT_EQ(ManifestReader::open(manifest()).error().code, EBADMSG) << size;
  }
  writeFile(manifest(), good + "f");
  EXPECT_EQ(ManifestReader::open(manifest()).error().code, EBADMSG);
  writeFile(manifest(), good);
  EXPECT_TRUE(ManifestReader::open(manifest()));
  EXPECT_EQ(ManifestReader::open(dir_ / "none").error().code, ENOENT);
}

TEST_F(ManifestTest, CanBeInterrupted) {
  record();
  interrupt_.raise();
  auto reader = ManifestReader::open(manifest());
  ASSERT_TRUE(reader);
  const auto found = compareWithManifest(*reader, openDirectory(dir_ / "t"), interrupt_);
  EXPECT_EQ(found.error().code, EINTR);
}

// -- on a store

using Action = Verified::Action;

Id id(const std::string& text) {
  return *Id::parse(text);
}

class VerifyTest : public ::testing::TestWithParam<Mode> {
 protected:
  VerifyTest() { open(); }

  void open() {
    store_.reset();
    auto made = Store::create(dir_ / "store", {GetParam(), "", true});
    ASSERT_TRUE(made) << made.error().message;
    store_ = std::move(*made);
  }
  void make(const std::string& name, const std::optional<std::string>& base = {}) {
    Interrupt interrupt;
    auto done = store_->build(id(name), base ? std::optional(id(*base)) : std::nullopt, User{},
                              interrupt, [&](const std::shared_ptr<Workspace>& tmp) -> Status {
                                writeFile(tmp->path() + "/" + name, "content of " + name);
                                return {};
                              });
    ASSERT_TRUE(done) << done.error().message;
    recorded();
  }
  void recorded() {
    Interrupt interrupt;
    ASSERT_TRUE(store_->completeRecords(interrupt));
  }
  std::map<std::string, Verified> verify(const std::vector<Id>& ids = {}, bool repair = false) {
    Interrupt interrupt;
    auto verified = store_->verify(ids, repair, interrupt);
    EXPECT_TRUE(verified) << verified.error().message;
    std::map<std::string, Verified> out;
    for (const Verified& each : *verified) out.emplace(each.id, each);
    return out;
  }
  std::string path(const std::string& below) const { return dir_ / ("store/" + below); }
  bool has(const std::string& name) const { return store_->hasResult(id(name)); }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_P(VerifyTest, WhatWasBuiltIsRecordedAndWhole) {
  make("a");
  make("b", "a");
  EXPECT_TRUE(exists(path("state/manifest/a")) && exists(path("state/manifest/b")));
  const auto found = verify();
  ASSERT_EQ(found.size(), 2U);
  for (const auto& [name, each] : found) {
    EXPECT_EQ(each.action, Action::ok) << name << ": " << each.why;
    EXPECT_THAT(each.why, HasSubstr("as it was recorded at 20"));
  }
  EXPECT_EQ(verify({id("a")}).size(), 1U);
  Interrupt interrupt;
  EXPECT_EQ(store_->verify({id("a"), id("x")}, false, interrupt).error().code, ENOENT);
}

TEST_P(VerifyTest, ADamagedResultIsFoundAndSetAside) {
  make("a");
  make("b", "a");
  writeFile(path("result/b/b"), "CONTENT of b");
  auto found = verify();
  EXPECT_EQ(found.at("a").action, Action::ok) << found.at("a").why;
  EXPECT_EQ(found.at("b").action, Action::differs);
  EXPECT_THAT(found.at("b").why, HasSubstr("'b' has other content"));
  EXPECT_TRUE(has("b")) << "only told";
  found = verify({}, true);
  EXPECT_TRUE(found.at("b").repaired);
  EXPECT_THAT(found.at("b").why, HasSubstr("set aside as state/bad/b"));
  EXPECT_FALSE(has("b"));
  EXPECT_EQ(store_->info(id("b")).error().code, ENOENT);
  EXPECT_EQ(readFile(path("state/bad/b/b")), "CONTENT of b");
  EXPECT_EQ(store_->info(id("a"))->children, 0);
  make("b", "a");
  EXPECT_EQ(verify().at("b").action, Action::ok);
  writeFile(path("result/b/b"), "content OF b");
  EXPECT_THAT(verify({}, true).at("b").why, HasSubstr("set aside as state/bad/b.1"));
}

TEST_P(VerifyTest, WhatWasBuiltOnADamagedResultIsLookedAtToo) {
  make("a");
  make("b", "a");
  writeFile(path("result/a/a"), "CONTENT OF A");
  const auto found = verify({id("a")}, true);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_TRUE(found.at("a").repaired);
  EXPECT_THAT(found.at("a").why, HasSubstr("what was built on it stays, if it is whole itself: b"));
  EXPECT_FALSE(has("a"));
  if (GetParam() == Mode::copy) {
    EXPECT_EQ(found.at("b").action, Action::ok) << found.at("b").why;
    EXPECT_FALSE(store_->info(id("b"))->parent) << "it stands by itself now";
  } else {
    EXPECT_EQ(found.at("b").action, Action::differs) << "they share the damaged file";
    EXPECT_FALSE(has("b"));
  }
}

TEST_P(VerifyTest, WithoutARecordOneIsMade) {
  make("a");
  ASSERT_EQ(::unlink(path("state/manifest/a").c_str()), 0);
  auto found = verify();
  EXPECT_EQ(found.at("a").action, Action::recorded);
  EXPECT_EQ(found.at("a").why, "there is nothing to compare with: recorded now");
  EXPECT_EQ(verify().at("a").action, Action::ok);
  writeFile(path("state/manifest/a"), "garbage");
  EXPECT_EQ(verify().at("a").action, Action::recorded);
  EXPECT_EQ(verify().at("a").action, Action::ok);
}

TEST_P(VerifyTest, AResultOfObuildersIsRecordedWhenItIsVerified) {
  store_.reset();
  ASSERT_EQ(::mkdir(path("result/o").c_str(), 0755), 0);
  writeFile(path("result/o/log"), "log");
  open();
  recorded();
  EXPECT_FALSE(exists(path("state/manifest/o"))) << "not before somebody asks";
  EXPECT_EQ(verify().at("o").action, Action::recorded);
  EXPECT_EQ(verify().at("o").action, Action::ok);
}

TEST_P(VerifyTest, AResultThatIsGoneFromDisk) {
  make("a");
  make("b", "a");
  std::filesystem::remove_all(path("result/a"));
  auto found = verify();
  EXPECT_EQ(found.at("a").action, Action::missing);
  EXPECT_EQ(found.at("a").why, "its directory is gone");
  EXPECT_EQ(found.at("b").action, Action::ok);
  found = verify({id("a")}, true);
  EXPECT_TRUE(found.at("a").repaired);
  EXPECT_EQ(verify().size(), 1U);
  EXPECT_FALSE(exists(path("state/manifest/a")));
  make("a");
  EXPECT_EQ(verify().at("a").action, Action::ok);
}

TEST_P(VerifyTest, WhatIsBeingSavedIsNotMissing) {
  make("a");
  std::filesystem::remove_all(path("result/a"));  // now it has a row and no directory, as then
  Interrupt interrupt;
  const auto done = store_->build(id("a"), {}, User{}, interrupt,
                                  [&](const std::shared_ptr<Workspace>&) -> Status {
                                    EXPECT_EQ(verify({}, true).at("a").action, Action::ok);
                                    EXPECT_TRUE(store_->info(id("a")));
                                    return {};
                                  });
  EXPECT_TRUE(done) << done.error().message;
}

TEST_P(VerifyTest, TheBaseOfARunningBuildIsNotSetAside) {
  make("a");
  writeFile(path("result/a/a"), "damaged");
  Interrupt interrupt;
  const auto done = store_->build(
      id("b"), id("a"), User{}, interrupt, [&](const std::shared_ptr<Workspace>&) -> Status {
        const auto found = verify({}, true);
        EXPECT_EQ(found.at("a").action, Action::differs);
        EXPECT_FALSE(found.at("a").repaired);
        EXPECT_THAT(found.at("a").why,
                    HasSubstr("not set aside: a running build uses it as its base"));
        return {};
      });
  ASSERT_TRUE(done);
  EXPECT_TRUE(has("a"));
}

TEST_P(VerifyTest, APinOutlastsARepair) {
  make("a");
  ASSERT_TRUE(store_->setPinned(id("a"), true));
  writeFile(path("result/a/a"), "damaged");
  EXPECT_TRUE(verify({}, true).at("a").repaired);
  EXPECT_EQ(store_->pins()->size(), 1U);
  make("a");
  EXPECT_EQ(store_->remove(id("a"), false).error().code, EBUSY);
  writeFile(path("result/a/a"), "damaged");
  EXPECT_TRUE(verify({}, true).at("a").repaired);
  EXPECT_TRUE(store_->setPinned(id("a"), false)) << "also without its result";
}

TEST_P(VerifyTest, TheNextStartRecordsWhatWasNotRecorded) {
  make("a");
  ASSERT_EQ(::unlink(path("state/manifest/a").c_str()), 0);
  writeFile(path("state/manifest/gone"), "of a result that is gone");
  writeFile(path("state/manifest/.7"), "half written");
  open();
  recorded();
  EXPECT_TRUE(exists(path("state/manifest/a")));
  EXPECT_EQ(entries(path("state/manifest")), 1U);
}

TEST_P(VerifyTest, AResultThatWasMadeAnewBehindOurBackIsNotDamaged) {
  make("a");
  // As OBuilder would in its turn.
  {
    SQLite::Database db(path("state/db/db.sqlite"), SQLite::OPEN_READWRITE, 5000);
    db.exec("UPDATE builds SET created = datetime('now', '-1 day') WHERE id = 'a'");
  }
  writeFile(path("result/a/a"), "made anew");
  // The directory's own change has to be later than the record, to the second.
  const auto later = [&] {
    struct stat made = {};
    struct stat recorded = {};
    ::stat(path("result/a").c_str(), &made);
    ::stat(path("state/manifest/a").c_str(), &recorded);
    return made.st_ctime > recorded.st_mtime + 1;
  };
  while (!later()) ASSERT_EQ(::chmod(path("result/a").c_str(), 0755), 0);
  EXPECT_EQ(verify().at("a").action, Action::recorded) << verify().at("a").why;
  EXPECT_EQ(verify().at("a").action, Action::ok);
}

INSTANTIATE_TEST_SUITE_P(Modes, VerifyTest, ::testing::Values(Mode::copy, Mode::hardlink),
                         [](const auto& mode) { return modeName(mode.param); });

}  // namespace
}  // namespace kilnfs
