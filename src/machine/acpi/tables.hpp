// ACPI 6.5 tables of the board: RSDP, XSDT, FADT, MADT, HPET, DSDT.
#pragma once

#include "machine/config.hpp"
#include "memory/guest_memory.hpp"

namespace stasis {

// Where the tables lie: the BIOS area, which the e820 map reserves.
constexpr u64 kAcpiTablesAddress = 0xe'0000, kAcpiTablesSize = 0x1'0000;

// Writes the tables and returns the RSDP's guest physical address. Called at power-on and reset only: never over
// restored RAM (the tables there are the guest's).
Result<u64> write_acpi_tables(const MachineConfig& config, GuestMemory& memory);

}  // namespace stasis
