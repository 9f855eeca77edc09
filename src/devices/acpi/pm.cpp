// ACPI fixed hardware. The timer is guest time; only its laps, which set TMR_STS, need a memory.
#include "devices/acpi/pm.hpp"

#include <algorithm>
#include <utility>

namespace stasis {
namespace {

constexpr u64 kTimerHz = 3'579'545;

u8 byte_of(u16 word, unsigned index) { return static_cast<u8>(word >> 8 * (index & 1)); }
u16 with_byte(u16 word, unsigned index, u8 byte) {
  return index & 1 ? static_cast<u16>((word & 0xff) | byte << 8) : static_cast<u16>((word & 0xff00) | byte);
}

}  // namespace

AcpiPm::AcpiPm(Clock& clock, IrqLine& sci, SystemControl& system)
    : clock_(clock), sci_(sci), system_(system), alarm_(clock, [this] {
        catch_up();
        settle();
      }) {
  reset();
}

// PM1 is byte-wide here: guest time stands still within an instruction, so the bytes of a wide access agree.
void AcpiPm::attach(PortBus& bus) {
  bus.map(kEventPort, kTimerPort - 1, *this);
  bus.map(kTimerPort, kTimerPort + 3, *this, 4);
  bus.map(kSmiCommandPort, kSmiCommandPort + 1, *this);
}

void AcpiPm::reset() {
  s_ = {.origin_ns = clock_.now()};
  settle();
}

u64 AcpiPm::ticks() const {
  return clock_.now() < s_.origin_ns ? 0 : mul_div(clock_.now() - s_.origin_ns, kTimerHz, kSecond);
}

u64 AcpiPm::lap_ns(u64 lap) const {
  const u128 time = static_cast<u128>(s_.origin_ns) + mul_div_up(lap << 31, kSecond, kTimerHz);
  return static_cast<u64>(std::min<u128>(time, Clock::kNever));
}

void AcpiPm::catch_up() {
  s_.status = status();
  s_.laps_seen = static_cast<u32>(std::max<u64>(s_.laps_seen, laps()));
}

void AcpiPm::settle() {
  const bool acpi = s_.control & State::kSciEnable;
  sci_.set(acpi && s_.status & s_.enable);
  const bool lap_shows = acpi && s_.enable & State::kTimer && !(s_.status & State::kTimer);
  alarm_.at(lap_shows ? lap_ns(u64{s_.laps_seen} + 1) : Clock::kNever);
}

void AcpiPm::press_power_button() {
  catch_up();
  s_.status |= State::kPowerButton;
  settle();
}

void AcpiPm::write_control(u16 value) {
  s_.control = value & State::kControlBits;
  if (!(value & State::kSleepEnable)) return;
  const unsigned type = value >> 10 & 7;
  if (type == kSleepTypeOff) system_.request_poweroff();
  else sleep_notice_.notice("acpi.pm: the guest asked for sleep type {}, which this board does not have", type);
}

u32 AcpiPm::port_read(u16 port, unsigned size) {
  if (port >= kTimerPort && port < kTimerPort + 4) {
    const u32 value = static_cast<u32>(ticks()) >> 8 * (port - kTimerPort);
    return size == 4 ? value : value & ((1u << 8 * size) - 1);
  }
  switch (port) {
    case kSmiCommandPort: return s_.smi_command;
    case kSmiCommandPort + 1: return s_.smi_status;
    case kEventPort: case kEventPort + 1: return byte_of(status(), port);
    case kEventPort + 2: case kEventPort + 3: return byte_of(s_.enable, port);
    case kControlPort: case kControlPort + 1: return byte_of(s_.control, port);
    default: return 0;
  }
}

void AcpiPm::port_write(u16 port, unsigned, u32 value) {
  const u8 byte = static_cast<u8>(value);
  catch_up();
  switch (port) {
    case kEventPort: case kEventPort + 1: s_.status &= static_cast<u16>(~with_byte(0, port, byte)); break;
    case kEventPort + 2: case kEventPort + 3: s_.enable = with_byte(s_.enable, port, byte) & State::kEnableBits; break;
    case kControlPort: case kControlPort + 1: write_control(with_byte(s_.control, port, byte)); break;
    case kSmiCommandPort:  // as if firmware's SMI handler had run
      s_.smi_command = byte;
      if (byte == kAcpiEnable) s_.control |= State::kSciEnable;
      if (byte == kAcpiDisable) s_.control &= static_cast<u16>(~State::kSciEnable);
      break;
    case kSmiCommandPort + 1: s_.smi_status = byte; break;
    default: break;  // the timer is read-only
  }
  settle();
}

}  // namespace stasis
