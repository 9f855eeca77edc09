// The bounded queue: waiting with patience, taking from the front.
#include "host/byte_queue.hpp"

#include <algorithm>
#include <chrono>

namespace stasis::host {

std::size_t ByteQueue::push(Bytes bytes) {
  std::unique_lock lock(mutex_);
  while (!bytes.empty() && !abandoned_) {
    const std::size_t room = most_ - size_locked();
    if (room > 0) {
      const std::size_t count = std::min(room, bytes.size());
      bytes_.insert(bytes_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
      bytes = bytes.subspan(count);
      continue;
    }
    if (stuck_ || patience_ns_ == 0) break;
    const u64 before = consumed_;
    stuck_ = !progress_.wait_for(lock, std::chrono::nanoseconds(patience_ns_),
                                 [&] { return consumed_ != before || abandoned_; });
  }
  return bytes.size();
}

std::size_t ByteQueue::peek(MutableBytes out) const {
  const std::lock_guard lock(mutex_);
  const std::size_t count = std::min(out.size(), size_locked());
  std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(head_), count, out.begin());
  return count;
}

void ByteQueue::consume(std::size_t count) {
  const std::lock_guard lock(mutex_);
  head_ += std::min(count, size_locked());
  consumed_ += count;
  stuck_ = false;
  drop_taken();
  progress_.notify_all();
}

// Moves the rest to the front only when at least half is taken: each byte moves once at most, on average.
void ByteQueue::drop_taken() {
  if (head_ * 2 < bytes_.size()) return;
  bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(head_));
  head_ = 0;
}

void ByteQueue::abandon() {
  const std::lock_guard lock(mutex_);
  abandoned_ = true;
  bytes_.clear();
  head_ = 0;
  progress_.notify_all();
}

bool ByteQueue::wait_until_empty(u64 patience_ns) {
  std::unique_lock lock(mutex_);
  while (size_locked() > 0) {
    const u64 before = consumed_;
    if (!progress_.wait_for(lock, std::chrono::nanoseconds(patience_ns),
                            [&] { return consumed_ != before || abandoned_; }))
      return false;
  }
  return !abandoned_;
}

std::size_t ByteQueue::size() const {
  const std::lock_guard lock(mutex_);
  return size_locked();
}

}  // namespace stasis::host
