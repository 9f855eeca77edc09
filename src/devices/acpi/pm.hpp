// ACPI fixed hardware: PM1 events and control, the power-management timer, and the SMI command port that
// switches ACPI on. ACPI 6.5, 4.8.3 (PM1, PM timer), 4.8.2.3 (SMI_CMD), 16.1 (sleep).
#pragma once

#include "base/log.hpp"
#include "bus/clock.hpp"
#include "bus/irq_line.hpp"
#include "bus/port_bus.hpp"
#include "bus/system_control.hpp"
#include "state/part.hpp"

namespace stasis {

struct AcpiPmState {
  u16 status = 0;     // PM1_STS
  u16 enable = 0;     // PM1_EN
  u16 control = 0;    // PM1_CNT
  u8 smi_command = 0;
  u8 smi_status = 0;
  u64 origin_ns = 0;  // guest time at which the timer read zero
  u32 laps_seen = 0;  // changes of the timer's top bit already shown in `status`

  static constexpr u16 kTimer = 1 << 0, kGlobal = 1 << 5, kPowerButton = 1 << 8;
  static constexpr u16 kSciEnable = 1 << 0, kSleepType = 7 << 10, kSleepEnable = 1 << 13;
  static constexpr u16 kEnableBits = 0x0721, kControlBits = kSciEnable | 1 << 1 | kSleepType;
  static constexpr auto layout() {
    using S = AcpiPmState;
    return state::Layout("acpi.pm", 1,
                         state::field<&S::status>("status").hex().allow(kTimer | kGlobal | kPowerButton).help("PM1_STS"),
                         state::field<&S::enable>("enable").hex().allow(kEnableBits).help("PM1_EN"),
                         state::field<&S::control>("control").hex().allow(kControlBits).help("PM1_CNT"),
                         state::field<&S::smi_command>("smi_command").hex(), state::field<&S::smi_status>("smi_status").hex(),
                         state::field<&S::origin_ns>("origin_ns").unit("ns").help("when the timer read zero"),
                         state::field<&S::laps_seen>("laps_seen").help("changes of the timer's top bit in status"));
  }
};

class AcpiPm final : public state::Stateful<AcpiPmState>, public PortDevice {
 public:
  // For the FADT. The timer has 32 bits (TMR_VAL_EXT); the sleep button and RTC wake are not fixed features.
  static constexpr u16 kEventPort = 0x600, kControlPort = 0x604, kTimerPort = 0x608, kSmiCommandPort = 0xb2;
  static constexpr u8 kAcpiEnable = 2, kAcpiDisable = 3;
  static constexpr u8 kSleepTypeOff = 5;  // \_S5

  AcpiPm(Clock& clock, IrqLine& sci, SystemControl& system);
  void attach(PortBus& bus);
  void press_power_button();

  u32 port_read(u16 port, unsigned size) override;
  void port_write(u16 port, unsigned size, u32 value) override;
  void reset() override;
  void settle() override;

 private:
  u64 ticks() const;
  u64 laps() const { return ticks() >> 31; }
  u64 lap_ns(u64 lap) const;  // guest time of the change of the top bit number `lap`
  u16 status() const { return s_.status | (laps() > s_.laps_seen ? State::kTimer : 0); }
  void catch_up();
  void write_control(u16 value);

  Clock& clock_;
  IrqLine& sci_;
  SystemControl& system_;
  Alarm alarm_;
  log::Once sleep_notice_;
};

}  // namespace stasis
