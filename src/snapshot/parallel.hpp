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
// This thread does meanwhile() and leaves the items to `threads` others. Where the host gives no more threads, it does them too.
template <class Work, class Meanwhile>
void in_parallel(u64 items, unsigned threads, const Work& work, const Meanwhile& meanwhile) {
  std::atomic<u64> next{0};
  const auto run = [&](unsigned worker) {
    for (u64 item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) work(item, worker);
  };
  const unsigned wanted = static_cast<unsigned>(std::min<u64>(threads, items));
  std::vector<std::thread> others;
  others.reserve(wanted);
  try {
    while (others.size() < wanted) others.emplace_back(run, static_cast<unsigned>(others.size()));
  } catch (const std::system_error&) {  // the ones that are there are enough, with this one
  }
  meanwhile();
  if (others.size() < wanted) run(static_cast<unsigned>(others.size()));
  for (std::thread& other : others) other.join();
}

template <class Work>
void in_parallel(u64 items, unsigned threads, const Work& work) {
  in_parallel(items, threads, work, [] {});
}

}  // namespace stasis::snapshot
