// Work on many chunks at once: a handful of threads for one call.
#pragma once

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

#include "base/types.hpp"

namespace stasis::snapshot {

inline unsigned default_threads() { return std::clamp(std::thread::hardware_concurrency(), 1u, 8u); }

// work(item, worker) for each item below `items`, in any order; `worker` is below `threads` and never at two items at once.
// Where the host gives no more threads, fewer do it all.
template <class Work>
void in_parallel(u64 items, unsigned threads, const Work& work) {
  std::atomic<u64> next{0};
  const auto run = [&](unsigned worker) {
    for (u64 item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) work(item, worker);
  };
  std::vector<std::thread> others;
  try {
    for (unsigned worker = 1; worker < threads && worker < items; ++worker) others.emplace_back(run, worker);
  } catch (const std::system_error&) {  // the ones that are there are enough
  }
  run(0);
  for (std::thread& other : others) other.join();
}

}  // namespace stasis::snapshot
