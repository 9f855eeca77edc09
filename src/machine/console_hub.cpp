// The console's fan-out.
#include "machine/console_hub.hpp"

namespace stasis {

u64 ConsoleHub::add(Listener listener) {
  const std::lock_guard lock(mutex_);
  listeners_.emplace(next_id_, std::move(listener));
  return next_id_++;
}

void ConsoleHub::remove(u64 id) {
  const std::lock_guard lock(mutex_);
  listeners_.erase(id);
}

void ConsoleHub::flush() {
  if (pending_.empty()) return;
  const std::lock_guard lock(mutex_);
  for (auto& [id, listener] : listeners_) listener(pending_);
  pending_.clear();
}

}  // namespace stasis
