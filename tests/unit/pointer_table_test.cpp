#include "store/base/pointer_table.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>

namespace kilnfs {
namespace {

struct Thing {
  int key;
};
// Few homes, so that nearly all of them meet.
struct ByKey {
  using Key = int;
  static int key(const Thing& thing) { return thing.key; }
  static size_t hash(int key) { return static_cast<size_t>(key) % 5; }
};

TEST(PointerTable, FindsWhatAMapFinds) {
  PointerTable<Thing, ByKey> table;
  std::map<int, std::unique_ptr<Thing>> map;
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    const int key = static_cast<int>(random() % 200);
    if (map.count(key) == 0) {
      map[key] = std::make_unique<Thing>(Thing{key});
      table.insert(map[key].get());
    } else if (random() % 2 == 0) {
      table.erase(key);
      map.erase(key);
    }
    const int other = static_cast<int>(random() % 200);
    const auto at = map.find(other);
    ASSERT_EQ(table.find(other), at != map.end() ? at->second.get() : nullptr) << i;
    ASSERT_EQ(table.size(), map.size());
  }
  EXPECT_EQ(table.take().size(), map.size());
  EXPECT_EQ(table.find(1), nullptr);
}

TEST(PointerTable, AnEmptyOneHasNothing) {
  PointerTable<Thing, ByKey> table;
  EXPECT_EQ(table.find(1), nullptr);
  table.erase(1);
  EXPECT_TRUE(table.take().empty());
}

}  // namespace
}  // namespace kilnfs
