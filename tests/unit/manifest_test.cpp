// Manifests: what is recorded of a tree, and how one is compared with it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>

#include "store/copy_node.h"
#include "store/manifest_compare.h"
#include "tests/support/temp_dir.h"

namespace kilnfs {
namespace {

using ::testing::ElementsAre;
using testing::entries;
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

}  // namespace
}  // namespace kilnfs
