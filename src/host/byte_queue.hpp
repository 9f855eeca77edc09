// A bounded queue of bytes between the machine's thread and an outside that may be slow, stuck or gone.
#pragma once

#include <condition_variable>
#include <mutex>
#include <vector>

#include "base/types.hpp"

namespace stasis::host {

// One thread pushes, one takes. Lossless while the taker makes progress; a taker that takes nothing for
// `patience_ns` while the queue is full costs the pusher that wait once, and after it the bytes that do not fit.
class ByteQueue {
 public:
  ByteQueue(std::size_t most_bytes, u64 patience_ns) : most_(most_bytes), patience_ns_(patience_ns) {}

  std::size_t push(Bytes bytes);                   // returns how many were dropped
  std::size_t peek(MutableBytes out) const;        // copies from the front, takes nothing
  void consume(std::size_t count);                 // these have reached the outside
  void abandon();                                  // the outside is gone: everything is dropped from now on
  bool wait_until_empty(u64 patience_ns);          // false: no progress for that long, or abandoned with bytes left
  std::size_t size() const;

 private:
  std::size_t size_locked() const { return bytes_.size() - head_; }
  void drop_taken();

  const std::size_t most_;
  const u64 patience_ns_;
  mutable std::mutex mutex_;
  std::condition_variable progress_;
  std::vector<u8> bytes_;
  std::size_t head_ = 0;     // bytes before it are taken
  u64 consumed_ = 0;         // ever; how a waiter sees progress
  bool stuck_ = false;       // patience ran out and nothing was taken since
  bool abandoned_ = false;
};

}  // namespace stasis::host
