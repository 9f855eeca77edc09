// The test device by which a guest ends its run: a value written to port 0xF4 becomes the exit status.
#pragma once

#include "bus/port_bus.hpp"
#include "bus/system_control.hpp"
#include "state/part.hpp"

namespace stasis {

class DebugExit final : public state::Stateless, public PortDevice {
 public:
  static constexpr u16 kPort = 0xf4;  // to 0xf7; narrower writes of the first port count too

  explicit DebugExit(SystemControl& control) : Stateless("qemu.debug_exit"), control_(control) {}
  void attach(PortBus& bus) { bus.map(kPort, kPort + 3, *this, 4); }

  u32 port_read(u16, unsigned) override { return 0; }
  void port_write(u16 port, unsigned, u32 value) override {
    if (port == kPort) control_.request_debug_exit(value);
  }

 private:
  SystemControl& control_;
};

}  // namespace stasis
