// The PC's keyboard controller (Intel 8042 as programmed for the IBM PS/2, Technical Reference "Keyboard and Auxiliary
// Device Controller") and system control port A (0x92): reset and the A20 gate. Nothing is plugged into its ports.
#pragma once

#include <array>
#include <string>

#include "bus/irq_line.hpp"
#include "bus/port_bus.hpp"
#include "bus/system_control.hpp"
#include "state/part.hpp"

namespace stasis {

struct KeyboardControllerState {
  std::array<u8, 32> ram{};  // byte 0 is the command byte
  u8 awaits = 0;             // the command whose data byte comes next on port 0x60; 0: none
  bool last_was_command = false;
  bool full = false;     // the output buffer holds a byte
  bool timeout = false;  // it says that a device did not answer
  u8 output = 0;
  bool a20 = true;  // open at power-on: kernels are started directly

  static constexpr auto layout() {
    using S = KeyboardControllerState;
    using state::field;
    return state::Layout("intel.8042", 1, field<&S::ram>("ram").help("byte 0 is the command byte"),
                         field<&S::awaits>("awaits").hex().help("command that waits for its data byte"),
                         field<&S::last_was_command>("last_was_command"), field<&S::full>("full"),
                         field<&S::timeout>("timeout"), field<&S::output>("output").hex(), field<&S::a20>("a20"));
  }
};

class KeyboardController final : public state::Stateful<KeyboardControllerState>, public PortDevice {
 public:
  KeyboardController(SystemControl& control, IrqLine& irq1);
  void attach(PortBus& bus);  // 0x60, 0x64, 0x92

  u32 port_read(u16 port, unsigned size) override;
  void port_write(u16 port, unsigned size, u32 value) override;
  void settle() override;  // also tells the A20 gate

 private:
  std::string check(const KeyboardControllerState& staged) const override;
  u8 status() const;
  u8 take_output();
  void answer(u8 value);
  void no_device_answered();
  void command(u8 value);
  void data(u8 value);
  void write_output_port(u8 value);

  SystemControl& control_;
  IrqLine& irq1_;
};

}  // namespace stasis
