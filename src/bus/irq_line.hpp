// An interrupt wire: one driver, any number of receivers.
//
// The wire has no memory that is state: a receiver keeps the last level it saw in its own state
// and finds edges by comparing, so driving the same level again (after a restore) is no edge.
#pragma once

#include <functional>
#include <vector>

#include "base/types.hpp"

namespace stasis {

class IrqLine {
 public:
  using Receiver = std::function<void(bool level)>;
  void connect(Receiver receiver) { receivers_.push_back(std::move(receiver)); }
  // Tells every receiver, changed or not.
  void set(bool level) {
    level_ = level;
    for (const Receiver& receiver : receivers_) receiver(level);
  }
  void pulse() {  // a rising and a falling edge
    set(true);
    set(false);
  }
  bool level() const { return level_; }

 private:
  std::vector<Receiver> receivers_;
  bool level_ = false;
};

// Where message-signalled interrupts go: a 32-bit write to an address in 0xFEExxxxx
// (Intel SDM vol. 3A, 11.11 "Message Signalled Interrupts").
class MessageSink {
 public:
  virtual ~MessageSink() = default;
  virtual void deliver(u64 address, u32 data) = 0;
};

}  // namespace stasis
