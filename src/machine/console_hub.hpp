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

  void put(u8 byte) override { pending_.push_back(byte); }  // machine's thread
  void flush();                                             // machine's thread

 private:
  std::vector<u8> pending_;
  std::mutex mutex_;
  std::map<u64, Listener> listeners_;
  u64 next_id_ = 1;
};

}  // namespace stasis
