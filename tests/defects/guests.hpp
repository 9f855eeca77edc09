// Tiny guests for tests of a whole machine: programs of a few hundred instructions, started by the PVH note.
#pragma once

#include "machine/config.hpp"

namespace stasis::tiny {

Bytes events();    // FPU, NMI, #UD, 8259 and 8254 interrupts, shadows, REP; then it halts for ever
Bytes clocks();    // at each tick of the 8254 it logs PM timer and RTC; a PM timer that steps back ends it (port 0xF4)
Bytes tables();    // writes over the ACPI tables, then halts for ever
Bytes ioapic();    // sets the I/O APIC's ID and masks, then halts for ever
Bytes serial();    // opens COM1 with FIFO and interrupts and waits, reading nothing
Bytes spin();      // jumps to itself, interrupts off
Bytes halt();      // halts for ever, interrupts off
Bytes waiting();   // halts for ever, interrupts off, while one waits at the local APIC
Bytes rep();       // REP LODSB of 4 GiB, again and again
Bytes long_mode(); // 64-bit code, paging, ring 3, interrupts and devices; every fault leads back to its loop

constexpr u64 kEventsResult = 0x18'0000;  // FXSAVE image, then the numbers of ticks, NMIs and #UDs
constexpr u64 kClocksLog = 0x14'0000;     // 8 bytes a tick: PM timer, RTC seconds

// An ELF kernel of one segment with the PVH note; it begins with its first byte.
BootImages images(Bytes program);

}  // namespace stasis::tiny
