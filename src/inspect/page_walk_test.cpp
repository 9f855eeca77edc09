// Page tables made by hand, right and wrong.
#include <gtest/gtest.h>

#include "inspect/guest_sample.hpp"

namespace stasis::inspect {
namespace {

using namespace testing;

constexpr u64 kText = 0xffff'ffff'8100'0000;

// 0x1000 PML4, 0x2000 PDPT, 0x3000 PD, 0x4000 PT for the address.
SampleRam mapped_page(u64 address, u64 physical, u64 size = 16 * kMiB) {
  SampleRam ram(size);
  ram.entry(0x1000, address >> 39 & 511, 0x2000 | kUsable);
  ram.entry(0x2000, address >> 30 & 511, 0x3000 | kUsable);
  ram.entry(0x3000, address >> 21 & 511, 0x4000 | kUsable);
  ram.entry(0x4000, address >> 12 & 511, physical | kUsable);
  return ram;
}

TEST(PhysicalMemory, StepsOverTheHole) {
  const std::vector<u64> none;
  const PhysicalMemory memory({nullptr, 4 * kGiB, none});
  EXPECT_EQ(memory.offset_of(3 * kGiB - 1), 3 * kGiB - 1);
  EXPECT_FALSE(memory.offset_of(3 * kGiB));
  EXPECT_FALSE(memory.offset_of(4 * kGiB - 1));
  EXPECT_EQ(memory.offset_of(4 * kGiB), 3 * kGiB);
  EXPECT_FALSE(memory.offset_of(5 * kGiB));
  EXPECT_FALSE(memory.offset_of(~0ull));
  EXPECT_EQ(memory.address_of(3 * kGiB + 5), 4 * kGiB + 5);
  u8 byte[2];
  EXPECT_FALSE(memory.read(3 * kGiB - 1, byte));
  EXPECT_FALSE(memory.read(~0ull, byte));
}

TEST(PageWalk, FindsSmallLargeAndHugePages) {
  SampleRam ram = mapped_page(kText, 0x6000);
  const Walk small = walk(ram.memory(), four_levels(), kText + 0x123);
  EXPECT_EQ(small.end, Walk::End::mapped);
  EXPECT_EQ(small.physical, 0x6123u);
  EXPECT_EQ(small.page_bytes, 4 * kKiB);
  ram.entry(0x3000, kText >> 21 & 511, 0x60'0000 | 0x1000 | 0x80 | kUsable);  // bit 12 is PAT there
  const Walk large = walk(ram.memory(), four_levels(), kText + 0x12'3456);
  EXPECT_EQ(large.physical, 0x72'3456u);
  EXPECT_EQ(large.page_bytes, 2 * kMiB);
  ram.entry(0x2000, kText >> 30 & 511, 0x4000'0000 | 0x80 | kUsable);
  const Walk huge = walk(ram.memory(), four_levels(), kText + 0x12'3456);
  EXPECT_EQ(huge.page_bytes, kGiB);
  EXPECT_EQ(huge.physical, 0x4000'0000 + (kText & (kGiB - 1)) + 0x12'3456);
}

TEST(PageWalk, FiveLevels) {
  SampleRam ram = mapped_page(0x00ab'cdef'0123'4000, 0x6000);
  ram.entry(0x5000, 0x00ab'cdef'0123'4000 >> 48 & 511, 0x1000 | kUsable);
  const AddressSpace space{5, 0x5000, 0x5000};
  EXPECT_EQ(walk(ram.memory(), space, 0x00ab'cdef'0123'4fff).physical, 0x6fffu);
  EXPECT_EQ(walk(ram.memory(), {4, 0x1000, 0x1000}, 0x00ab'cdef'0123'4fff).end, Walk::End::not_canonical);
  const Mappings all = mappings_of(ram.memory(), space);
  ASSERT_EQ(all.runs.size(), 1u);
  EXPECT_EQ(all.runs[0].address, 0x00ab'cdef'0123'4000u);
}

TEST(PageWalk, RightsAreThoseOfAllLevels) {
  SampleRam ram = mapped_page(kText, 0x6000);
  EXPECT_TRUE(walk(ram.memory(), four_levels(), kText).writable);
  EXPECT_FALSE(walk(ram.memory(), four_levels(), kText).user);
  EXPECT_TRUE(walk(ram.memory(), four_levels(), kText).executable);
  ram.entry(0x3000, kText >> 21 & 511, 0x4000 | 1 | 1ull << 63);
  EXPECT_FALSE(walk(ram.memory(), four_levels(), kText).writable);
  EXPECT_FALSE(walk(ram.memory(), four_levels(), kText).executable);
  const Mappings all = mappings_of(ram.memory(), four_levels());
  ASSERT_EQ(all.runs.size(), 1u);
  EXPECT_FALSE(all.runs[0].executable);
  EXPECT_FALSE(all.runs[0].writable);
}

TEST(PageWalk, NamesTheLevelThatFails) {
  const std::pair<u64, const char*> levels[] = {{0x1000, "PML4"}, {0x2000, "PDPT"}, {0x3000, "PD "}, {0x4000, "PT "}};
  for (const auto& [table, name] : levels) {
    SampleRam ram = mapped_page(kText, 0x6000);
    for (u64 i = 0; i < 512; ++i) ram.entry(table, i, 0x66);
    u8 byte[1];
    const auto read = read_virtual(ram.memory(), four_levels(), kText, byte, "snapshot a");
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, ErrorCode::not_found);
    EXPECT_NE(read.error().message.find(std::string(name)), std::string::npos) << read.error().message;
    EXPECT_NE(read.error().message.find("0x66: not present"), std::string::npos) << read.error().message;
  }
  SampleRam ram = mapped_page(kText, 0x6000);
  ram.entry(0x1000, kText >> 39 & 511, 0x2000 | 0x80 | kUsable);
  EXPECT_EQ(walk(ram.memory(), four_levels(), kText).end, Walk::End::reserved_bit);
  EXPECT_TRUE(mappings_of(ram.memory(), four_levels()).runs.empty());
  ram.entry(0x1000, kText >> 39 & 511, 0xf'ffff'ffff'f000 | kUsable);
  EXPECT_EQ(walk(ram.memory(), four_levels(), kText).end, Walk::End::table_outside_ram);
  EXPECT_NE(reason(walk(ram.memory(), four_levels(), kText)).find("PDPT"), std::string::npos);
  EXPECT_EQ(walk(ram.memory(), four_levels(), 0x8000'0000'0000).end, Walk::End::not_canonical);
}

TEST(PageWalk, ReadsAcrossPagesAndStopsAtTheFirstHole) {
  SampleRam ram = mapped_page(kText, 0x6000);
  ram.entry(0x4000, (kText >> 12 & 511) + 1, 0x9000 | kUsable);
  ram.put_text(0x6ffc, "stas");
  ram.put_text(0x9000, "is");
  std::array<u8, 6> out{};
  ASSERT_TRUE(read_virtual(ram.memory(), four_levels(), kText + 0xffc, out, ""));
  EXPECT_EQ(std::string(out.begin(), out.end()), "stasis");
  std::vector<u8> more(2 * kPageSize);
  const auto beyond = read_virtual(ram.memory(), four_levels(), kText + 0xffc, more, "");
  ASSERT_FALSE(beyond);
  EXPECT_NE(beyond.error().message.find("0xffffffff81002000"), std::string::npos) << beyond.error().message;
  ram.entry(0x4000, (kText >> 12 & 511) + 2, 0x4000'0000 | kUsable);  // mapped, but not to RAM
  EXPECT_NE(read_virtual(ram.memory(), four_levels(), kText + 0x2000, out, "").error().message.find("not RAM"), std::string::npos);
  EXPECT_EQ(read_virtual(ram.memory(), four_levels(), ~0ull - 1, out, "").error().code, ErrorCode::usage);
}

TEST(PageWalk, PagingOffIsPhysical) {
  SampleRam ram(kMiB);
  ram.put_text(0x5000, "x");
  Vcpu vcpu;
  vcpu.cr0 = 0x10;
  const auto space = address_space_of(vcpu, ram.memory(), "");
  ASSERT_TRUE(space);
  u8 byte[1];
  ASSERT_TRUE(read_virtual(ram.memory(), *space, 0x5000, byte, ""));
  EXPECT_EQ(byte[0], 'x');
  EXPECT_FALSE(read_virtual(ram.memory(), *space, kMiB, byte, ""));
  ASSERT_EQ(mappings_of(ram.memory(), *space).runs.size(), 1u);
}

TEST(PageWalk, RefusesThirtyTwoBitAndPaePaging) {
  SampleRam ram(kMiB);
  Vcpu vcpu;
  vcpu.cr0 = 0x8000'0011;
  EXPECT_NE(address_space_of(vcpu, ram.memory(), "").error().message.find("32-bit"), std::string::npos);
  vcpu.cr4 = 0x20;
  const auto pae = address_space_of(vcpu, ram.memory(), "");
  ASSERT_FALSE(pae);
  EXPECT_EQ(pae.error().code, ErrorCode::unsupported);
  EXPECT_NE(pae.error().message.find("PAE"), std::string::npos);
  vcpu.efer = 0x500, vcpu.cr4 = 0x1020, vcpu.cr3 = 0x5018;
  EXPECT_EQ(address_space_of(vcpu, ram.memory(), "")->levels, 5u);
  EXPECT_EQ(address_space_of(vcpu, ram.memory(), "")->user_root, 0x5000u);
}

TEST(PageWalk, ProgramsUnderPageTableIsolationSeeTheKernelThroughItsOwnTable) {
  SampleRam ram(kMiB);
  for (u64 i = 256; i < 260; ++i) ram.entry(0x8000, i, 0x2000 | kUsable);
  ram.entry(0x9000, 256, 0x2000 | kUsable);
  Vcpu vcpu;
  vcpu.cr0 = 0x8000'0011, vcpu.efer = 0x500, vcpu.cr4 = 0x20, vcpu.cr3 = 0x9000;
  vcpu.cpl = 3;
  EXPECT_EQ(address_space_of(vcpu, ram.memory(), "")->kernel_root, 0x8000u);
  EXPECT_EQ(address_space_of(vcpu, ram.memory(), "")->user_root, 0x9000u);
  vcpu.cpl = 0;
  EXPECT_EQ(address_space_of(vcpu, ram.memory(), "")->kernel_root, 0x9000u);
}

TEST(Mappings, MergeWhatIsContiguousInBoth) {
  SampleRam ram = mapped_page(kText, 0x6000);
  const u64 first = kText >> 12 & 511;
  ram.entry(0x4000, first + 1, 0x7000 | kUsable);
  ram.entry(0x4000, first + 2, 0x9000 | kUsable);             // not contiguous
  ram.entry(0x4000, first + 3, 0xa000 | 1);                   // other rights
  ram.entry(0x4000, first + 4, 0x4000'0000 | kUsable);        // not RAM
  const Mappings all = mappings_of(ram.memory(), four_levels());
  ASSERT_EQ(all.runs.size(), 3u);
  EXPECT_EQ(all.runs[0].address, kText);
  EXPECT_EQ(all.runs[0].size, 2 * kPageSize);
  EXPECT_EQ(all.runs[1].physical, 0x9000u);
  EXPECT_EQ(all.runs[2].physical, 0xa000u);
  EXPECT_EQ(all.left_out, 0u);
}

TEST(Mappings, ClipToRam) {
  SampleRam ram = mapped_page(kText, 0, 3 * kMiB);
  ram.entry(0x2000, kText >> 30 & 511, 0x80 | kUsable);  // a page of 1 GiB over 3 MiB of RAM
  const Mappings all = mappings_of(ram.memory(), four_levels());
  ASSERT_EQ(all.runs.size(), 1u);
  EXPECT_EQ(all.runs[0].size, 3 * kMiB);
  EXPECT_EQ(all.runs[0].address, kText & ~(kGiB - 1));
}

TEST(Mappings, LoopsAndRepeatedTablesEnd) {
  SampleRam ram(kMiB);
  for (u64 i = 0; i < 512; ++i) ram.entry(0x1000, i, 0x1000 | kUsable);  // every entry of every level is the table itself
  const Mappings loop = mappings_of(ram.memory(), four_levels());
  EXPECT_GT(loop.left_out, 0u);
  EXPECT_LE(loop.runs.size(), 4u * 512);
  for (u64 i = 0; i < 512; ++i) ram.entry(0x1000, i, 0x2000 | kUsable), ram.entry(0x2000, i, 0x3000 | kUsable), ram.entry(0x3000, i, 0x4000 | kUsable);
  for (u64 i = 0; i < 512; ++i) ram.entry(0x4000, i, (i % 2 ? 0x6000 : 0x8000) | kUsable);
  const Mappings limited = mappings_of(ram.memory(), four_levels(), {.tables = 100, .runs = 100, .visits = 255});
  EXPECT_EQ(limited.runs.size(), 100u);
  EXPECT_GT(limited.left_out, 0u);
}

}  // namespace
}  // namespace stasis::inspect
