// Where everything is: ports, addresses and interrupt lines of the board, in one place.
#pragma once

#include "base/types.hpp"

namespace stasis::board {

constexpr u64 kIoApicBase = 0xfec0'0000, kHpetBase = 0xfed0'0000, kLocalApicBase = 0xfee0'0000;
constexpr u16 kPm1Event = 0x600, kPm1Control = 0x604, kPmTimer = 0x608, kSmiCommand = 0xb2;
constexpr u8 kAcpiEnable = 2, kAcpiDisable = 3, kSleepTypeS5 = 5;
constexpr u16 kResetControl = 0xcf9;
constexpr u8 kResetValue = 0x06;
constexpr unsigned kSciIrq = 9;  // level, active high at the I/O APIC
struct UartPlace {
  u16 port;
  u8 irq;
};
constexpr UartPlace kUarts[4] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};  // COM1..COM4

}  // namespace stasis::board
