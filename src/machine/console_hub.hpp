// Between the guest's COM1 and whoever listens: collects what the UART sends and hands it on in runs.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "host/character_device.hpp"

namespace stasis {

class ConsoleHub final : public host::CharacterSink {
 public:
  // Called on the machine's thread; must not block. Each listener sees every byte sent since it was added.
  using Listener = std::function<void(Bytes)>;
  u64 add(Listener listener);
  void remove(u64 id);  // from any thread; after it returns the listener is not called again

  // Called by the first byte since the last flush: somebody must flush soon.
  void on_pending(std::function<void()> call) { on_pending_ = std::move(call); }

  // These two on the machine's thread, or whichever of its threads may touch devices.
  void put(u8 byte) override {
    pending_.push_back(byte);
    if (pending_.size() == 1 && on_pending_) on_pending_();
  }
  void flush();

 private:
  std::vector<u8> pending_;
  std::function<void()> on_pending_;
  std::mutex mutex_;
  std::map<u64, Listener> listeners_;
  u64 next_id_ = 1;
};

}  // namespace stasis
