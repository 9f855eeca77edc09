// The host CPU as oracle: a child process that runs one instruction at a time between two signals.
#pragma once

#include <sys/types.h>

#include "layout.hpp"

namespace stasis::differential {

class Native {
 public:
  Native();
  ~Native();
  Native(const Native&) = delete;
  Native& operator=(const Native&) = delete;

  u8* memory() { return shared_->memory; }
  Start* starts() { return shared_->starts; }
  const Outcome* outcomes() const { return shared_->outcomes; }
  bool run(unsigned count);  // false: the child died

 private:
  friend struct Child;
  struct Shared {
    alignas(4096) u8 memory[kMemorySize];
    Start starts[kBatch];
    Outcome outcomes[kBatch];
  };
  Shared* shared_ = nullptr;
  pid_t child_ = -1;
  int to_child_ = -1, from_child_ = -1;
};

}  // namespace stasis::differential
