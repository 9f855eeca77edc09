// The Bochs debug console: a byte written to port 0xE9 goes outside; reading 0xE9 from the port says that it is there.
#pragma once

#include "bus/port_bus.hpp"
#include "host/character_device.hpp"
#include "state/part.hpp"

namespace stasis {

class DebugConsole final : public state::Stateless, public PortDevice {
 public:
  static constexpr u16 kPort = 0xe9;

  explicit DebugConsole(host::CharacterSink& sink) : Stateless("bochs.debug_console"), sink_(sink) {}
  void attach(PortBus& bus) { bus.map(kPort, kPort, *this); }

  u32 port_read(u16, unsigned) override { return 0xe9; }
  void port_write(u16, unsigned, u32 value) override { sink_.put(static_cast<u8>(value)); }

 private:
  host::CharacterSink& sink_;
};

}  // namespace stasis
