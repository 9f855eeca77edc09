// A byte stream of the outside (a terminal, a pipe, a socket, a file) as a UART sees it.
#pragma once

#include "base/types.hpp"

namespace stasis::host {

// Both ends are called on the machine's thread only.
class CharacterSink {  // towards the outside
 public:
  virtual ~CharacterSink() = default;
  virtual void put(u8 byte) = 0;  // never blocks the guest for ever: an unwilling outside loses bytes
};

class NullCharacterSink final : public CharacterSink {
 public:
  void put(u8) override {}
};

}  // namespace stasis::host
