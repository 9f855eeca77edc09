#include "machine/acpi/tables.hpp"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

using namespace stasis;
namespace {

struct Rig {
  explicit Rig(u32 cpus = 1) : memory(std::move(GuestMemory::create(2 * kMiB).value())) {
    rsdp = write_acpi_tables({.cpus = cpus}, memory).value();
  }
  template <class T>
  T at(u64 address) {
    T value{};
    EXPECT_TRUE(memory.read(address, {reinterpret_cast<u8*>(&value), sizeof value}));
    return value;
  }
  std::string text(u64 address, u64 size) { return {reinterpret_cast<const char*>(memory.host() + address), size}; }
  u8 sum(u64 address, u64 size) { return static_cast<u8>(std::accumulate(memory.host() + address, memory.host() + address + size, 0u)); }

  // Tables by signature, as an OS finds them.
  std::map<std::string, u64> tables() {
    std::map<std::string, u64> out;
    const u64 xsdt = at<u64>(rsdp + 24);
    for (u64 i = 36; i < at<u32>(xsdt + 4); i += 8) out[text(at<u64>(xsdt + i), 4)] = at<u64>(xsdt + i);
    out["XSDT"] = xsdt;
    out["DSDT"] = at<u64>(out.at("FACP") + 140);
    return out;
  }

  GuestMemory memory;
  u64 rsdp = 0;
};

TEST(AcpiTables, rsdp_is_where_an_os_looks_for_it) {
  Rig m;
  EXPECT_EQ(m.rsdp % 16, 0u);
  EXPECT_GE(m.rsdp, 0xe0000u);
  EXPECT_LT(m.rsdp, 0x100000u);
  EXPECT_EQ(m.text(m.rsdp, 8), "RSD PTR ");
  EXPECT_EQ(m.at<u8>(m.rsdp + 15), 2);
  EXPECT_EQ(m.at<u32>(m.rsdp + 20), 36u);
  EXPECT_EQ(m.sum(m.rsdp, 20), 0);
  EXPECT_EQ(m.sum(m.rsdp, 36), 0);
}

TEST(AcpiTables, every_table_sums_to_zero_inside_the_area) {
  Rig m;
  const auto tables = m.tables();
  ASSERT_EQ(tables.size(), 5u);
  for (const auto& [name, address] : tables) {
    const u32 length = m.at<u32>(address + 4);
    EXPECT_EQ(m.text(address, 4), name);
    EXPECT_GE(length, 36u) << name;
    EXPECT_GE(address, kAcpiTablesAddress) << name;
    EXPECT_LE(address + length, kAcpiTablesAddress + kAcpiTablesSize) << name;
    EXPECT_EQ(m.sum(address, length), 0) << name;
    EXPECT_EQ(m.text(address + 10, 6), "STASIS") << name;
  }
}

TEST(AcpiTables, fadt_names_the_board) {
  Rig m;
  const u64 t = m.tables().at("FACP");
  EXPECT_EQ(m.at<u32>(t + 4), 276u);
  EXPECT_EQ(m.at<u8>(t + 8), 6);
  EXPECT_EQ(m.at<u32>(t + 40), m.at<u64>(t + 140));
  EXPECT_EQ(m.at<u16>(t + 46), 9);
  EXPECT_EQ(m.at<u32>(t + 48), 0xb2u);
  EXPECT_EQ(m.at<u8>(t + 52), 2);
  EXPECT_EQ(m.at<u8>(t + 53), 3);
  EXPECT_EQ(m.at<u32>(t + 56), 0x600u);
  EXPECT_EQ(m.at<u32>(t + 64), 0x604u);
  EXPECT_EQ(m.at<u32>(t + 76), 0x608u);
  EXPECT_EQ(m.at<u32>(t + 88), 0x04000204u);
  EXPECT_EQ(m.at<u8>(t + 108), 0x32);
  EXPECT_EQ(m.at<u16>(t + 109), 0x17);
  const u32 flags = m.at<u32>(t + 112);
  EXPECT_EQ(flags & (1 << 4 | 1 << 20), 0u);  // fixed power button, not hardware-reduced
  EXPECT_EQ(flags & (1 << 8 | 1 << 10), u32{1 << 8 | 1 << 10});
  EXPECT_EQ(m.at<u32>(t + 116), 0x01000801u);
  EXPECT_EQ(m.at<u64>(t + 120), 0xcf9u);
  EXPECT_EQ(m.at<u8>(t + 128), 6);
  EXPECT_EQ(m.at<u32>(t + 148), 0x03002001u);
  EXPECT_EQ(m.at<u64>(t + 152), 0x600u);
  EXPECT_EQ(m.at<u32>(t + 172), 0x02001001u);
  EXPECT_EQ(m.at<u64>(t + 176), 0x604u);
  EXPECT_EQ(m.at<u64>(t + 212), 0x608u);

  const u64 facs = m.at<u32>(t + 36);
  EXPECT_EQ(facs % 64, 0u);
  EXPECT_EQ(m.text(facs, 4), "FACS");
  EXPECT_EQ(m.at<u32>(facs + 4), 64u);
}

TEST(AcpiTables, madt_lists_cpus_ioapic_and_overrides) {
  Rig m(3);
  const u64 t = m.tables().at("APIC");
  EXPECT_EQ(m.at<u32>(t + 36), 0xfee00000u);
  EXPECT_EQ(m.at<u32>(t + 40), 1u);
  std::map<int, int> seen;
  for (u64 at = t + 44; at < t + m.at<u32>(t + 4); at += m.at<u8>(at + 1)) {
    const int kind = m.at<u8>(at);
    ASSERT_GT(m.at<u8>(at + 1), 1);
    switch (kind) {
      case 0:
        EXPECT_EQ(m.at<u8>(at + 3), seen[0]);
        EXPECT_EQ(m.at<u32>(at + 4), 1u);
        break;
      case 1:
        EXPECT_EQ(m.at<u8>(at + 2), 3);  // no CPU's
        EXPECT_EQ(m.at<u32>(at + 4), 0xfec00000u);
        EXPECT_EQ(m.at<u32>(at + 8), 0u);
        break;
      case 2:
        EXPECT_EQ(m.at<u8>(at + 3), seen[2] ? 9 : 0);
        EXPECT_EQ(m.at<u32>(at + 4), seen[2] ? 9u : 2u);
        EXPECT_EQ(m.at<u16>(at + 8), seen[2] ? 0xd : 0);
        break;
      case 4:
        EXPECT_EQ(m.at<u8>(at + 2), 0xff);
        EXPECT_EQ(m.at<u8>(at + 5), 1);
        break;
    }
    ++seen[kind];
  }
  EXPECT_EQ(seen, (std::map<int, int>{{0, 3}, {1, 1}, {2, 2}, {4, 1}}));
}

TEST(AcpiTables, hpet_and_dsdt) {
  Rig m;
  const auto tables = m.tables();
  EXPECT_EQ(m.at<u32>(tables.at("HPET") + 4), 56u);
  EXPECT_EQ(m.at<u64>(tables.at("HPET") + 44), 0xfed00000u);
  const u64 dsdt = tables.at("DSDT");
  const std::string aml = m.text(dsdt, m.at<u32>(dsdt + 4));
  // Name (\_S5, Package (4) { 5, 5, 0, 0 })
  EXPECT_NE(aml.find(std::string("\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00", 13)), std::string::npos);
  for (const char* device : {"COM1", "COM4", "HPET", "RTC_", "TIMR", "PIC_"}) EXPECT_NE(aml.find(device), std::string::npos) << device;
}

TEST(AcpiTables, sixteen_cpus_fit) {
  Rig m(16);
  for (const auto& [name, address] : m.tables()) EXPECT_EQ(m.sum(address, m.at<u32>(address + 4)), 0) << name;
}

}  // namespace
