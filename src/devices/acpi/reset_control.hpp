// The reset control register at port 0xCF9 (Intel ICH9 datasheet, 13.7.5), also the ACPI reset register (value 6).
//
// The register is a byte in the middle of PCI's CONFIG_ADDRESS: only byte accesses are its own. It claims all four
// ports so that a wide access is not taken apart; a PCI host bridge maps them itself and passes on bytes at 0xCF9.
#pragma once

#include "bus/port_bus.hpp"
#include "bus/system_control.hpp"
#include "state/part.hpp"

namespace stasis {

struct ResetControlState {
  u8 value = 0;
  static constexpr u8 kSystemReset = 1 << 1, kResetCpu = 1 << 2, kFullReset = 1 << 3;
  static constexpr auto layout() {
    using S = ResetControlState;
    return state::Layout("intel.reset_control", 1, state::field<&S::value>("value").hex().allow(kSystemReset | kResetCpu | kFullReset));
  }
};

class ResetControl final : public state::Stateful<ResetControlState>, public PortDevice {
 public:
  static constexpr u16 kPort = 0xcf9;
  static constexpr u8 kResetValue = 6;

  explicit ResetControl(SystemControl& system) : system_(system) {}
  void attach(PortBus& bus) { bus.map(kPort - 1, kPort + 2, *this, 4); }

  u32 port_read(u16 port, unsigned size) override { return port == kPort && size == 1 ? s_.value : ~0u; }
  void port_write(u16 port, unsigned size, u32 value) override {
    if (port != kPort || size != 1) return;
    const bool rises = value & State::kResetCpu && !(s_.value & State::kResetCpu);
    s_.value = value & (State::kSystemReset | State::kResetCpu | State::kFullReset);
    if (rises) system_.request_reset();
  }

 private:
  SystemControl& system_;
};

}  // namespace stasis
