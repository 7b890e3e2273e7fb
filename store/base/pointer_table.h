// A hash table of pointers to objects that know their own key: as compact as can be, since there is
// an entry for each known file. Open addressing, no more than a few words beside the pointers. Not
// thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace kilnfs {

/// Traits: `Key`, `static Key key(const T&)`, `static size_t hash(const Key&)`.
template <class T, class Traits>
class PointerTable {
 public:
  using Key = typename Traits::Key;

  T* find(const Key& key) const {
    if (slots_.empty()) return nullptr;
    for (size_t i = home(key);; i = next(i)) {
      if (slots_[i] == nullptr || Traits::key(*slots_[i]) == key) return slots_[i];
    }
  }
  /// There must be none of the same key.
  void insert(T* object) {
    if ((size_ + 1) * 4 > slots_.size() * 3) grow();
    place(object);
    ++size_;
  }
  /// What has the key is no longer in the table; its key may change afterwards.
  void erase(const Key& key) {
    if (slots_.empty()) return;
    size_t hole = home(key);
    while (slots_[hole] != nullptr && !(Traits::key(*slots_[hole]) == key)) hole = next(hole);
    if (slots_[hole] == nullptr) return;
    --size_;
    // Those that follow move up, unless that would put them before their home.
    for (size_t i = next(hole); slots_[i] != nullptr; i = next(i)) {
      const size_t wanted = home(Traits::key(*slots_[i]));
      if (((i - wanted) & mask()) < ((i - hole) & mask())) continue;
      slots_[hole] = slots_[i];
      hole = i;
    }
    slots_[hole] = nullptr;
  }
  size_t size() const { return size_; }
  /// Empties the table; gives what was in it.
  std::vector<T*> take() {
    std::vector<T*> all;
    for (T* object : slots_) {
      if (object != nullptr) all.push_back(object);
    }
    slots_.clear();
    size_ = 0;
    return all;
  }

 private:
  size_t mask() const { return slots_.size() - 1; }
  size_t home(const Key& key) const { return Traits::hash(key) & mask(); }
  size_t next(size_t i) const { return (i + 1) & mask(); }
  void place(T* object) {
    size_t i = home(Traits::key(*object));
    while (slots_[i] != nullptr) i = next(i);
    slots_[i] = object;
  }
  void grow() {
    std::vector<T*> old(slots_.empty() ? 16 : slots_.size() * 2);
    old.swap(slots_);
    for (T* object : old) {
      if (object != nullptr) place(object);
    }
  }

  std::vector<T*> slots_;  // a power of two of them, or none
  size_t size_ = 0;
};

}  // namespace kilnfs
