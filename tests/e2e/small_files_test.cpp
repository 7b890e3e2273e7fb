// Small files that are read: the kernel is given their content when they are opened, and must never
// be left with what they were before.

#include <sys/mman.h>

#include <atomic>
#include <thread>

#include "tests/support/lease_fixture.h"

namespace kilnfs::testing {
namespace {

class SmallFiles : public Lease {
 protected:
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

  /// Changes "f" in one of all ways that there are, and `model` as it should be then.
  static void change(int way, std::string& model) {
    const std::string text = "change " + std::to_string(way) + ";";
    switch (way % 7) {
      case 0:
        model = text;
        put("f", text);
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
        model.resize(model.size() / 2);
        ASSERT_EQ(::truncate("f", static_cast<off_t>(model.size())), 0);
        break;
      case 4:
        model.resize(model.size() + 100);
        ASSERT_EQ(::truncate("f", static_cast<off_t>(model.size())), 0);
        break;
      case 5:
        copyBehind(model);
        break;
      default:
        model = text + model;
        put("g", model);
        readLately("g");
        ASSERT_EQ(::rename("g", "f"), 0);
    }
  }
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
  for (int way = 0; way < 1500 && !HasFailure(); ++way) {
    change(way, model);
    if (way % 11 == 0) readLately("f");
    if (way % 3 == 0) continue;  // changed at once again
    EXPECT_EQ(get("f"), model) << "after change " << way;
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
}

TEST_F(SmallFiles, AreReadAsTheyAreMapped) {
  put("f", "1");
  void* at = ::mmap(nullptr, 1, PROT_WRITE, MAP_SHARED, open("f", O_RDWR).get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  for (const char value : {'2', '3', '4'}) {
    *static_cast<volatile char*>(at) = value;
    readLately("f");
    EXPECT_EQ(get("f"), std::string(1, value));
  }
  ::munmap(at, 1);
}

}  // namespace
}  // namespace kilnfs::testing
