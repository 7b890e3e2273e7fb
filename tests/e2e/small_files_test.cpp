// Small files that are read: the kernel is given their content when they are opened, and must never
// be left with what they were before.

#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "tests/support/lease_fixture.h"

namespace kilnfs::testing {
namespace {

class SmallFiles : public Lease {
 protected:
  void publishAndLeaseAgain() {
    const std::string lease = mnt("leases/" + std::filesystem::current_path().filename().string());
    std::filesystem::current_path(mnt());
    ASSERT_EQ(::rmdir(lease.c_str()), 0);
    std::filesystem::current_path(std::filesystem::canonical(mnt("caches/c")));
  }

  /// Sets the access time so that reading does not move it, whatever is written meanwhile.
  static void readLately(const std::string& name) {
    const struct timespec times[2] = {{::time(nullptr) + 100000, 0}, {0, UTIME_OMIT}};
    ASSERT_EQ(::utimensat(AT_FDCWD, name.c_str(), times, 0), 0);
  }

  static void copyBehind(std::string& model) {
    auto end = static_cast<off64_t>(model.size());
    off64_t start = 0;
    const ssize_t copied = ::copy_file_range(open("f", O_RDONLY).get(), &start,
                                             open("f", O_WRONLY).get(), &end, model.size(), 0);
    ASSERT_EQ(copied, static_cast<ssize_t>(model.size()));
    model += model;
  }

  static void allocate(int mode, size_t size) {
    ASSERT_EQ(::fallocate(open("f", O_WRONLY).get(), mode, 0, static_cast<off_t>(size)), 0);
  }

  static void mapAndWrite(std::string& model) {
    const std::string text = "mapped";
    if (model.size() < text.size()) return;
    model.replace(0, text.size(), text);
    void* at = ::mmap(nullptr, text.size(), PROT_READ | PROT_WRITE, MAP_SHARED,
                      open("f", O_RDWR).get(), 0);
    ASSERT_NE(at, MAP_FAILED);
    std::memcpy(at, text.data(), text.size());
    ::munmap(at, text.size());
  }

  /// Changes "f" in one of all ways that there are, and `model` as it should be then.
  static void change(int way, std::string& model) {
    const std::string text = "change " + std::to_string(way) + ";";
    switch (way % kWays) {
      case 0:
        model = text + std::string(static_cast<size_t>(way) * 37 % 9000, 'x');
        put("f", model);
        break;
      case 1:
        model += text;
        ASSERT_GT(::write(open("f", O_WRONLY | O_APPEND).get(), text.data(), text.size()), 0);
        break;
      case 2:
        model.replace(0, std::min(model.size(), text.size()), text);
        ASSERT_GT(::pwrite(open("f", O_WRONLY).get(), text.data(), text.size(), 0), 0);
        break;
      case 3:
        copyBehind(model);
        break;
      case 4:
        model.resize(model.size() + 5000);
        ASSERT_EQ(::truncate("f", static_cast<off_t>(model.size())), 0);
        break;
      case 5:
        model.resize(model.size() / 2);
        ASSERT_EQ(::truncate("f", static_cast<off_t>(model.size())), 0);
        break;
      case 6:
        model.replace(0, 10, std::string(10, '\0'));
        allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10);
        break;
      case 7:
        model = text + model;
        put("g", model);
        readLately("g");
        ASSERT_EQ(::rename("g", "f"), 0);
        break;
      case 8:
        model.resize(model.size() / 3);
        ASSERT_EQ(::ftruncate(open("f", O_WRONLY).get(), static_cast<off_t>(model.size())), 0);
        break;
      default:
        mapAndWrite(model);
    }
  }
  static constexpr int kWays = 10;
};

TEST_F(SmallFiles, AreReadAsTheyAreNow) {
  put("f", "");
  readLately("f");
  std::atomic<bool> done = false;
  // They make the kernel have pages of all that ever is in it.
  const auto readOn = [&] {
    while (!done) get("f");
  };
  std::thread readers[] = {std::thread(readOn), std::thread(readOn)};
  std::string model;
  for (int way = 0; way < 3000 && !HasFailure(); ++way) {
    // What was mapped is not kept until it is replaced.
    if (way % kWays == kWays - 1 && way % (7 * kWays) != kWays - 1) continue;
    change(way, model);
    if (way % 11 == 0) readLately("f");
    if (way % 3 == 0) continue;  // changed at once again
    EXPECT_TRUE(get("f") == model) << "after change " << way;
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
}

// Those that are the cache's still, and become the lease's with the change; by a second name too.
TEST_F(SmallFiles, AreReadAsTheyAreNowThoughTheyWereTheCaches) {
  const std::string text = "once " + std::string(4000, 'y');
  for (int way = 0; way < 2 * kWays && !HasFailure(); ++way) {
    SCOPED_TRACE(way);
    const bool linked = way >= kWays;
    put("f", text);
    ::unlink("other");
    if (linked) {
      ASSERT_EQ(::link("f", "other"), 0);
    }
    EXPECT_TRUE(get("f") == text);  // moves its access time, for once
    publishAndLeaseAgain();
    for (int i = 0; i < 2; ++i) EXPECT_TRUE(get("f") == text);
    EXPECT_TRUE(!linked || get("other") == text);
    std::string model = text;
    change(way, model);
    for (int i = 0; i < 2; ++i) EXPECT_TRUE(get("f") == model);
    const bool replaced = way % kWays == 7;
    EXPECT_TRUE(!linked || get("other") == (replaced ? text : model));
  }
}

TEST_F(SmallFiles, AreReadAsTheyAreMapped) {
  put("f", "1");
  readLately("f");
  EXPECT_EQ(get("f"), "1");
  void* at = ::mmap(nullptr, 1, PROT_WRITE, MAP_SHARED, open("f", O_RDWR).get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  UniqueFd appending;  // through the page cache, while it is open
  for (const char value : {'2', '3', '4', '5', '6', '7'}) {
    *static_cast<volatile char*>(at) = value;
    EXPECT_EQ(get("f"), std::string(1, value));
    if (value == '4') appending = open("f", O_WRONLY | O_APPEND);
  }
  ::munmap(at, 1);
}

}  // namespace
}  // namespace kilnfs::testing
