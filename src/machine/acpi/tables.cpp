// The board's ACPI tables, byte by byte. ACPI 6.5: RSDP 5.2.5.3, XSDT 5.2.8, FADT 5.2.9, FACS 5.2.10,
// MADT 5.2.12; IA-PC HPET specification 1.0a, 3.2.4.
#include "machine/acpi/tables.hpp"

#include <numeric>
#include <string_view>
#include <vector>

#include "dsdt_aml.hpp"
#include "machine/board_map.hpp"

namespace stasis {
namespace {

constexpr u64 kFacsSize = 64, kRsdpSize = 36;

u8 checksum(Bytes bytes) { return static_cast<u8>(-std::accumulate(bytes.begin(), bytes.end(), 0u)); }

// A growing table, little-endian.
class Table {
 public:
  Table() = default;
  // With the header that all but RSDP and FACS have; length and checksum follow in finished().
  Table(std::string_view signature, u8 revision) {
    text(signature).u32_(0).u8_(revision).u8_(0).text("STASIS").text("STASIS01").u32_(1).text("STAS").u32_(1);
  }

  Table& u8_(u8 value) { return number(value, 1); }
  Table& u16_(u16 value) { return number(value, 2); }
  Table& u32_(u32 value) { return number(value, 4); }
  Table& u64_(u64 value) { return number(value, 8); }
  Table& text(std::string_view value) {
    bytes_.insert(bytes_.end(), value.begin(), value.end());
    return *this;
  }
  // Generic Address Structure of a port of `bytes` bytes, accessed whole; 0: absent.
  Table& port(u16 address, u8 bytes) {
    constexpr u8 kSystemIo = 1;
    if (bytes == 0) return u64_(0).u32_(0);
    const u8 access = bytes == 1 ? 1 : bytes == 2 ? 2 : 3;
    return u8_(kSystemIo).u8_(static_cast<u8>(bytes * 8)).u8_(0).u8_(access).u64_(address);
  }
  u64 size() const { return bytes_.size(); }
  const std::vector<u8>& finished() {
    for (unsigned i = 0; i < 4; ++i) bytes_[4 + i] = static_cast<u8>(bytes_.size() >> 8 * i);
    bytes_[9] = 0;
    bytes_[9] = checksum(bytes_);
    return bytes_;
  }
  std::vector<u8>& bytes() { return bytes_; }

 private:
  Table& number(u64 value, unsigned count) {
    for (unsigned i = 0; i < count; ++i) bytes_.push_back(static_cast<u8>(value >> 8 * i));
    return *this;
  }
  std::vector<u8> bytes_;
};

std::vector<u8> make_facs() {
  Table t;
  t.text("FACS").u32_(kFacsSize).u32_(0).u32_(0).u32_(0).u32_(0).u64_(0).u8_(2);
  t.bytes().resize(kFacsSize);
  return t.bytes();
}

std::vector<u8> make_fadt(u64 facs, u64 dsdt) {
  using namespace board;
  constexpr u8 kMinorVersion = 5, kCenturyRegister = 0x32;
  constexpr u16 kNoC2 = 0xfff, kNoC3 = 0xfff;
  // IAPC_BOOT_ARCH: legacy devices, 8042; no VGA; ASPM must stay off.
  constexpr u16 kLegacyDevices = 1, k8042 = 1 << 1, kNoVga = 1 << 2, kNoAspm = 1 << 4;
  // The power button is a fixed feature (flag clear); a sleep button and the RTC as a fixed wake event are absent.
  constexpr u32 kWbinvd = 1, kProcC1 = 1 << 2, kNoSleepButton = 1 << 5, kNoFixedRtc = 1 << 6, kTimer32Bits = 1 << 8,
                kResetRegister = 1 << 10;
  Table t("FACP", 6);
  t.u32_(static_cast<u32>(facs)).u32_(static_cast<u32>(dsdt)).u8_(0);
  t.u8_(0).u16_(kSciIrq).u32_(kSmiCommand).u8_(kAcpiEnable).u8_(kAcpiDisable).u8_(0).u8_(0);
  t.u32_(kPm1Event).u32_(0).u32_(kPm1Control).u32_(0).u32_(0).u32_(kPmTimer).u32_(0).u32_(0);
  t.u8_(4).u8_(2).u8_(0).u8_(4).u8_(0).u8_(0).u8_(0).u8_(0);  // lengths: PM1 event, control, PM2, timer, GPE0, GPE1; base, _CST
  t.u16_(kNoC2).u16_(kNoC3).u16_(0).u16_(0).u8_(0).u8_(0).u8_(0).u8_(0).u8_(kCenturyRegister);
  t.u16_(kLegacyDevices | k8042 | kNoVga | kNoAspm).u8_(0);
  t.u32_(kWbinvd | kProcC1 | kNoSleepButton | kNoFixedRtc | kTimer32Bits | kResetRegister);
  t.port(kResetControl, 1).u8_(kResetValue).u16_(0).u8_(kMinorVersion);
  t.u64_(0).u64_(dsdt);  // the 32-bit field names the FACS
  t.port(kPm1Event, 4).port(0, 0).port(kPm1Control, 2).port(0, 0).port(0, 0).port(kPmTimer, 4).port(0, 0).port(0, 0);
  t.port(0, 0).port(0, 0);  // sleep control and status: for hardware-reduced boards
  t.text("STASIS").u16_(0);  // hypervisor vendor
  STASIS_ASSERT(t.size() == 276);
  return t.finished();
}

std::vector<u8> make_madt(u32 cpus) {
  using namespace board;
  constexpr u32 kPcatCompatible = 1;  // an 8259 pair is there too
  constexpr u16 kActiveHigh = 1, kLevel = 3 << 2;
  // Local APIC IDs are 0 to cpus - 1. The register has four bits.
  const u8 ioapic_id = static_cast<u8>(cpus < 15 ? cpus : 15);
  Table t("APIC", 6);
  t.u32_(static_cast<u32>(kLocalApicBase)).u32_(kPcatCompatible);
  for (u32 i = 0; i < cpus; ++i) t.u8_(0).u8_(8).u8_(static_cast<u8>(i)).u8_(static_cast<u8>(i)).u32_(1);
  t.u8_(1).u8_(12).u8_(ioapic_id).u8_(0).u32_(static_cast<u32>(kIoApicBase)).u32_(0);
  t.u8_(2).u8_(10).u8_(0).u8_(0).u32_(2).u16_(0);                              // ISA IRQ 0 is pin 2
  t.u8_(2).u8_(10).u8_(0).u8_(kSciIrq).u32_(kSciIrq).u16_(kActiveHigh | kLevel);
  t.u8_(4).u8_(6).u8_(0xff).u16_(0).u8_(1);                                    // LINT1 of every CPU is NMI
  return t.finished();
}

std::vector<u8> make_hpet() {
  constexpr u32 kBlockId = 0x8086'a201;  // as in the chip's capabilities register
  constexpr u16 kLeastPeriodicTicks = 0x80;
  Table t("HPET", 1);
  t.u32_(kBlockId).u8_(0).u8_(64).u8_(0).u8_(0).u64_(board::kHpetBase).u8_(0).u16_(kLeastPeriodicTicks).u8_(0);
  return t.finished();
}

std::vector<u8> make_xsdt(std::initializer_list<u64> tables) {
  Table t("XSDT", 1);
  for (const u64 address : tables) t.u64_(address);
  return t.finished();
}

std::vector<u8> make_rsdp(u64 xsdt) {
  Table t;
  t.text("RSD PTR ").u8_(0).text("STASIS").u8_(2).u32_(0).u32_(kRsdpSize).u64_(xsdt).u8_(0).u8_(0).u8_(0).u8_(0);
  std::vector<u8>& bytes = t.bytes();
  bytes[8] = checksum(Bytes(bytes).first(20));
  bytes[32] = checksum(bytes);
  return bytes;
}

// Hands out places one after the other, and writes there.
class Area {
 public:
  explicit Area(GuestMemory& memory) : memory_(memory) {}
  u64 put(const std::vector<u8>& table) {
    const u64 at = next_;
    STASIS_ASSERT(at + table.size() <= kAcpiTablesAddress + kAcpiTablesSize);
    STASIS_ASSERT(memory_.write(at, table));  // RAM of the least size has the BIOS area
    next_ = align_up(at + table.size(), 64);
    return at;
  }

 private:
  GuestMemory& memory_;
  u64 next_ = kAcpiTablesAddress;
};

}  // namespace

Result<u64> write_acpi_tables(const MachineConfig& config, GuestMemory& memory) {
  if (config.cpus == 0 || config.cpus > 255)
    return fail(ErrorCode::usage, "acpi", "cpus is " + std::to_string(config.cpus) + ", allowed is 1 to 255", "use --cpus 1");
  Area area(memory);
  const u64 rsdp = area.put(std::vector<u8>(kRsdpSize));
  const u64 facs = area.put(make_facs());
  const u64 dsdt = area.put({std::begin(kDsdtAml), std::end(kDsdtAml)});
  const u64 fadt = area.put(make_fadt(facs, dsdt));
  const u64 madt = area.put(make_madt(config.cpus));
  const u64 hpet = area.put(make_hpet());
  const u64 xsdt = area.put(make_xsdt({fadt, madt, hpet}));
  STASIS_ASSERT(memory.write(rsdp, make_rsdp(xsdt)));
  return rsdp;
}

}  // namespace stasis
