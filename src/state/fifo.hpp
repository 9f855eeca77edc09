// A bounded queue as guest-visible state: saved as the items it holds, oldest first.
#pragma once

#include <array>

#include "base/types.hpp"

namespace stasis::state {

template <class T, std::size_t N>
struct Fifo {
  static_assert(N < 256);
  using value_type = T;
  std::array<T, N> slots{};  // oldest first; unused ones zero, so equal queues are equal bytes
  u8 count = 0;

  bool empty() const { return count == 0; }
  bool full() const { return count == N; }
  std::size_t size() const { return count; }
  T front() const { return slots[0]; }
  bool push(T item) {  // false: full, nothing changed
    if (full()) return false;
    slots[count++] = item;
    return true;
  }
  T pop() {  // the queue is not empty
    const T item = slots[0];
    for (u8 i = 1; i < count; ++i) slots[i - 1] = slots[i];
    slots[--count] = T{};
    return item;
  }
  void clear() { *this = {}; }
  bool operator==(const Fifo&) const = default;
};

}  // namespace stasis::state
