// The controller's commands; each is done at once, so the input buffer is never full.
#include "devices/i8042/keyboard_controller.hpp"

#include <fmt/format.h>

namespace stasis {
namespace {

constexpr u8 kOutputFull = 0x01, kSystemFlag = 0x04, kCommand = 0x08, kUnlocked = 0x10, kTimeout = 0x40;  // status
constexpr u8 kInterrupt = 0x01, kKeyboardDisabled = 0x10, kAuxiliaryDisabled = 0x20;  // command byte
constexpr u8 kNotReset = 0x01, kA20 = 0x02;  // output port
constexpr u8 kResend = 0xfe, kClockStuckHigh = 0x02, kNoPassword = 0xf1, kSelfTestOk = 0x55;

bool takes_data(u8 command) { return (command >= 0x60 && command <= 0x7f) || (command >= 0xd1 && command <= 0xd4); }

}  // namespace

KeyboardController::KeyboardController(SystemControl& control, IrqLine& irq1) : control_(control), irq1_(irq1) {
  irq1_.set(false);  // the A20 gate is told at the first settle(): the machine may not be whole yet
}

void KeyboardController::attach(PortBus& bus) {
  bus.map(0x60, 0x60, *this);
  bus.map(0x64, 0x64, *this);
  bus.map(0x92, 0x92, *this);
}

u32 KeyboardController::port_read(u16 port, unsigned) {
  if (port == 0x64) return status();
  if (port == 0x92) return s_.a20 ? kA20 : 0;
  return take_output();
}

void KeyboardController::port_write(u16 port, unsigned, u32 value) {
  const u8 byte = static_cast<u8>(value);
  if (port == 0x92) {
    s_.a20 = (byte & kA20) != 0;
    if (byte & 1) control_.request_reset();
  } else {
    s_.last_was_command = port == 0x64;
    if (port == 0x64) command(byte);
    else data(byte);
  }
  settle();
}

u8 KeyboardController::status() const {
  return static_cast<u8>((s_.full ? kOutputFull : 0) | (s_.ram[0] & kSystemFlag) | (s_.last_was_command ? kCommand : 0) |
                         kUnlocked | (s_.timeout ? kTimeout : 0));
}

// An empty buffer reads as its last byte.
u8 KeyboardController::take_output() {
  s_.full = s_.timeout = false;
  settle();
  return s_.output;
}

void KeyboardController::answer(u8 value) {
  s_.output = value;
  s_.full = true;
  s_.timeout = false;
}

void KeyboardController::no_device_answered() {
  answer(kResend);
  s_.timeout = true;
}

void KeyboardController::command(u8 value) {
  s_.awaits = takes_data(value) ? value : 0;
  if (value >= 0x20 && value <= 0x3f) return answer(s_.ram[value & 31]);
  if (value >= 0xf0) {  // pulses the output port's bits that are zero; bit 0 resets the machine
    if (!(value & kNotReset)) control_.request_reset();
    return;
  }
  switch (value) {
    case 0xa4: return answer(kNoPassword);
    case 0xa7: s_.ram[0] |= kAuxiliaryDisabled; return;
    case 0xa8: s_.ram[0] &= static_cast<u8>(~kAuxiliaryDisabled); return;
    case 0xa9: return answer(kClockStuckHigh);  // there is no auxiliary port
    case 0xaa: s_.ram[0] |= kSystemFlag; return answer(kSelfTestOk);
    case 0xab: return answer(0x00);
    case 0xad: s_.ram[0] |= kKeyboardDisabled; return;
    case 0xae: s_.ram[0] &= static_cast<u8>(~kKeyboardDisabled); return;
    case 0xc0: return answer(0x80);  // input port: not locked
    case 0xd0: return answer(static_cast<u8>(kNotReset | (s_.a20 ? kA20 : 0) | (irq1_.level() ? 0x10 : 0)));
    case 0xdd: s_.a20 = false; return;
    case 0xdf: s_.a20 = true; return;
    case 0xe0: return answer(0x00);
    default: return;
  }
}

void KeyboardController::data(u8 value) {
  const u8 command = s_.awaits;
  s_.awaits = 0;
  switch (command) {
    case 0x00:  // to the keyboard, which switches its port on
      s_.ram[0] &= static_cast<u8>(~kKeyboardDisabled);
      return no_device_answered();
    case 0xd1: return write_output_port(value);
    case 0xd2: case 0xd3: return answer(value);  // without an auxiliary port 0xD3 comes back as the keyboard's
    case 0xd4: return no_device_answered();
    default: s_.ram[command & 31] = value; return;
  }
}

void KeyboardController::write_output_port(u8 value) {
  s_.a20 = (value & kA20) != 0;
  if (!(value & kNotReset)) control_.request_reset();
}

void KeyboardController::settle() {
  irq1_.set(s_.full && (s_.ram[0] & kInterrupt));
  control_.set_a20(s_.a20);
}

std::string KeyboardController::check(const KeyboardControllerState& staged) const {
  if (staged.awaits && !takes_data(staged.awaits))
    return fmt::format("awaits is {:#x}, allowed are 0 and commands with a data byte (0x60-0x7f, 0xd1-0xd4)", staged.awaits);
  if (!staged.full && staged.timeout) return "timeout is set, but the output buffer is empty";
  return {};
}

}  // namespace stasis
