// The bytes of ELF cores and of pictures.
#include <gtest/gtest.h>

#include <elf.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "inspect/elf_core.hpp"
#include "inspect/glyphs.hpp"
#include "inspect/guest_sample.hpp"
#include "inspect/picture.hpp"

namespace stasis::inspect {
namespace {

using namespace testing;

constexpr u64 kText = 0xffff'ffff'8100'0000;

template <class T>
T at(Bytes bytes, u64 offset) {
  T out;
  STASIS_ASSERT(offset + sizeof out <= bytes.size());
  std::memcpy(&out, bytes.data() + offset, sizeof out);
  return out;
}

struct Note {
  std::string name;
  u32 type;
  Bytes body;
};

std::vector<Note> notes_in(Bytes bytes) {
  std::vector<Note> out;
  for (u64 offset = 0; offset < bytes.size();) {
    const u32 name = at<u32>(bytes, offset), size = at<u32>(bytes, offset + 4), type = at<u32>(bytes, offset + 8);
    out.push_back({std::string(reinterpret_cast<const char*>(bytes.data()) + offset + 12), type, bytes.subspan(offset + 12 + align_up(name, 4), size)});
    offset += 12 + align_up(name, 4) + align_up(size, 4);
  }
  return out;
}

std::vector<Vcpu> vcpus() { return {*vcpu_from(vcpu_record(0), ""), *vcpu_from(vcpu_record(1), "")}; }

TEST(VcpuRecord, IsReadByNames) {
  const Vcpu vcpu = vcpus()[1];
  EXPECT_EQ(vcpu.number, 1u);
  EXPECT_EQ(vcpu.gpr[kR15], 0x110u);
  EXPECT_EQ(vcpu.cs.selector, 0x18);
  EXPECT_EQ(vcpu.fpu.xmm[15][3], 0x4f);
}

TEST(VcpuRecord, RefusesWhatIsMissingOrOfAnotherKind) {
  const auto refused = [](auto change, const char* says) {
    auto record = vcpu_record(0);
    change(*record.state.as<cbor::Map>());
    const auto vcpu = vcpu_from(record, "snapshot a");
    ASSERT_FALSE(vcpu) << says;
    EXPECT_NE(vcpu.error().message.find(says), std::string::npos) << vcpu.error().message;
  };
  refused([](auto& m) { m.set("rip", "text"); }, "rip");
  refused([](auto& m) { m.set("cpl", u64{256}); }, "cpl");
  refused([](auto& m) { m.set("gpr", cbor::Array(15, u64{1})); }, "array of 16");
  refused([](auto& m) { m.set("cs", u64{1}); }, "cs is no record");
  refused([](auto& m) { m.set("cs", cbor::Map()); }, "cs/selector is not there");
  refused([](auto& m) { m.set("fpu", cbor::Map()); }, "fpu/fcw");
  refused([](auto& m) { m.set("xsave", cbor::Map()); }, "xsave/xcr0");
  snapshot::Image image;
  EXPECT_EQ(vcpus_of(image, "").error().code, ErrorCode::unsupported);
  image.parts = {vcpu_record(10), vcpu_record(2)};
  EXPECT_EQ(vcpus_of(image, "")->front().number, 2u);
  EXPECT_EQ(vcpu_of(image, 3, "").error().code, ErrorCode::not_found);
}

TEST(ElfCore, NotesHoldEveryRegister) {
  auto cpus = vcpus();
  cpus[1].xsave.xcr0 = 0x2e7, cpus[1].xsave.in_use = 4, cpus[1].xsave.ymm_high[2][5] = 0xaa, cpus[1].xsave.pkru = 7;
  const std::vector<u8> bytes = core_notes(cpus);
  const auto notes = notes_in(bytes);
  ASSERT_EQ(notes.size(), 7u);
  EXPECT_EQ(notes[0].name, "CORE");
  EXPECT_EQ(notes[0].type, u32{NT_PRSTATUS});
  EXPECT_EQ(notes[0].body.size(), 336u);
  EXPECT_EQ(at<u32>(notes[0].body, 32), 1u);  // pr_pid
  const auto reg = [&](std::size_t note, int index) { return at<u64>(notes[note].body, 112 + 8 * static_cast<u64>(index)); };
  // r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs
  const u64 want[] = {16, 15, 14, 13, 6, 4, 12, 11, 10, 9, 1, 2, 3, 7, 8, ~0ull, kText, 0x18, 0x202, 5, 0x20, 0x1030, 0x1038, 0x28, 0x10, 0x30, 0x38};
  for (int i = 0; i < 27; ++i) EXPECT_EQ(reg(0, i), want[i]) << i;
  EXPECT_EQ(at<u32>(notes[2].body, 32), 2u);
  EXPECT_EQ(reg(2, 10), 0x101u);
  EXPECT_EQ(notes[1].type, u32{NT_FPREGSET});
  ASSERT_EQ(notes[1].body.size(), 512u);
  EXPECT_EQ(at<u16>(notes[1].body, 0), 0x37f);
  EXPECT_EQ(notes[1].body[32 + 16 * 3], 3);   // ST(3)
  EXPECT_EQ(notes[1].body[160 + 16 * 9], 0x49);
  EXPECT_EQ(notes[4].type, u32{NT_X86_XSTATE});
  ASSERT_EQ(notes[4].body.size(), 2696u);
  EXPECT_EQ(at<u64>(notes[4].body, 464), 0x2e7u);
  EXPECT_EQ(at<u64>(notes[4].body, 512), 7u);
  EXPECT_EQ(notes[4].body[576 + 2 * 16 + 5], 0xaa);
  EXPECT_EQ(at<u32>(notes[4].body, 2688), 7u);
  EXPECT_EQ(notes[6].name, "QEMU");
  ASSERT_EQ(notes[6].body.size(), 440u);
  EXPECT_EQ(at<u64>(notes[6].body, 8), 0x101u);             // rax
  EXPECT_EQ(at<u32>(notes[6].body, 152 + 8), 0xa09b00u);    // flags of cs
  EXPECT_EQ(at<u64>(notes[6].body, 392), 0x8005'0033u);     // cr0
  EXPECT_EQ(at<u64>(notes[6].body, 416), 0x1000u);          // cr3
  EXPECT_EQ(at<u64>(notes[6].body, 432), 0x77u);            // kernel_gs_base
}

SampleRam mapped() {
  SampleRam ram(4 * kMiB);
  ram.entry(0x1000, 0, 0x2000 | kUsable);
  ram.entry(0x1000, 511, 0x2000 | kUsable);
  ram.entry(0x2000, 510, 0x3000 | kUsable);
  ram.entry(0x3000, 8, 0x20'0000 | 0x80 | kUsable);
  return ram;
}

TEST(ElfCore, SegmentsShareOneCopyOfRam) {
  const SampleRam ram = mapped();
  const CorePlan plan = plan_core(vcpus(), ram.memory(), four_levels());
  const auto header = at<Elf64_Ehdr>(plan.head, 0);
  EXPECT_EQ(std::memcmp(header.e_ident, ELFMAG, SELFMAG), 0);
  EXPECT_EQ(header.e_type, ET_CORE);
  EXPECT_EQ(header.e_machine, EM_X86_64);
  ASSERT_EQ(header.e_phnum, 4);
  std::vector<Elf64_Phdr> segments;
  for (u64 i = 0; i < header.e_phnum; ++i) segments.push_back(at<Elf64_Phdr>(plan.head, header.e_phoff + i * sizeof(Elf64_Phdr)));
  EXPECT_EQ(segments[0].p_type, u32{PT_NOTE});
  EXPECT_EQ(notes_in(Bytes(plan.head).subspan(segments[0].p_offset, segments[0].p_filesz)).size(), 6u);
  EXPECT_EQ(segments[1].p_vaddr, 0x7f'8100'0000u);
  EXPECT_EQ(segments[2].p_vaddr, kPhysicalWindow);
  EXPECT_EQ(segments[2].p_filesz, 4 * kMiB);
  EXPECT_EQ(segments[2].p_offset, plan.ram_offset);
  EXPECT_EQ(segments[3].p_vaddr, kText);
  EXPECT_EQ(segments[3].p_paddr, 0x20'0000u);
  EXPECT_EQ(segments[3].p_offset, plan.ram_offset + 0x20'0000);
  EXPECT_EQ(segments[3].p_filesz, 2 * kMiB);
  EXPECT_EQ(plan.ram_offset % kPageSize, 0u);
  EXPECT_GE(plan.ram_offset, plan.head.size());
  EXPECT_EQ(plan.file_bytes, plan.ram_offset + 4 * kMiB);
}

TEST(ElfCore, WithoutPagingHasPhysicalAddressesAsTheyAre) {
  const SampleRam ram = mapped();
  const CorePlan plan = plan_core(vcpus(), ram.memory(), {});
  EXPECT_EQ(plan.segments, 1u);
  EXPECT_EQ(at<Elf64_Phdr>(plan.head, 64 + 56).p_vaddr, 0u);
}

TEST(ElfCore, MoreSegmentsThanSixteenBitsCountGoToTheSectionHeader) {
  SampleRam ram(4 * kMiB);
  // 160 page tables' worth of single pages, every second one mapped.
  ram.entry(0x1000, 511, 0x2000 | kUsable);
  ram.entry(0x2000, 510, 0x3000 | kUsable);
  for (u64 i = 0; i < 300; ++i) ram.entry(0x3000, i, 0x4000 | kUsable);
  for (u64 i = 0; i < 512; i += 2) ram.entry(0x4000, i, 0x10'0000 | kUsable);
  const CorePlan plan = plan_core(vcpus(), ram.memory(), four_levels(), {.tables = 1000, .runs = 1 << 20, .visits = 255});
  const auto header = at<Elf64_Ehdr>(plan.head, 0);
  const u64 headers = 255 * 256 + 2;
  ASSERT_EQ(plan.segments + 1, headers);
  EXPECT_EQ(header.e_phnum, std::min<u64>(headers, PN_XNUM));
  EXPECT_EQ(plan.left_out, 45u);
  SampleRam more = ram;
  for (u64 i = 255; i < 300; ++i) more.entry(0x3000, i, 0x5000 | kUsable);
  for (u64 i = 0; i < 512; i += 2) more.entry(0x5000, i, 0x10'0000 | kUsable);
  const CorePlan larger = plan_core(vcpus(), more.memory(), four_levels(), {.tables = 1000, .runs = 1 << 20, .visits = 255});
  EXPECT_EQ(at<Elf64_Ehdr>(larger.head, 0).e_phnum, PN_XNUM);
  EXPECT_EQ(at<Elf64_Shdr>(larger.head, 64).sh_info, larger.segments + 1);
  EXPECT_EQ(at<Elf64_Phdr>(larger.head, 128).p_type, u32{PT_NOTE});
}

TEST(ElfCore, RamIsWrittenWithHoles) {
  const SampleRam ram = mapped();
  std::FILE* file = std::tmpfile();
  ASSERT_TRUE(file);
  ASSERT_TRUE(write_ram(::fileno(file), 0x2000, ram.memory(), "core"));
  u64 entry = 0;
  ASSERT_EQ(::pread(::fileno(file), &entry, 8, 0x2000 + 0x3000 + 8 * 8), 8);
  EXPECT_EQ(entry, 0x20'0083u);
  EXPECT_EQ(::lseek(::fileno(file), 0, SEEK_END), static_cast<off_t>(0x2000 + 4 * kMiB));
  EXPECT_EQ(::lseek(::fileno(file), 0x2000 + 0x4000, SEEK_DATA), -1);
  std::fclose(file);
}

Picture picture() {
  return {"a<b>.stasis", "1 MiB", {{{1, 2, 3}, "zero & more"}}, 4, {{9, 9, 9}, {9, 9, 9}, {1, 2, 3}, {9, 9, 9}, {9, 9, 9}}, {{0, "0x0"}}};
}

TEST(Picture, MixesTheColoursOfACell) {
  EXPECT_EQ(pages_per_cell(1), 1u);
  EXPECT_EQ(pages_per_cell(65536), 1u);
  EXPECT_EQ(pages_per_cell(65537), 2u);
  const std::array<Color, 5> colors{Color{0, 0, 0}, {100, 200, 40}};
  const auto cells = cells_of({0, 1, 1, 1, 0}, colors, 2);
  ASSERT_EQ(cells.size(), 3u);
  EXPECT_EQ(cells[0], (Color{50, 100, 20}));
  EXPECT_EQ(cells[1], (Color{100, 200, 40}));
  EXPECT_EQ(cells[2], (Color{0, 0, 0}));
}

TEST(Picture, SvgEscapesAndMergesNeighbours) {
  const std::string svg = to_svg(picture());
  EXPECT_NE(svg.find("a&lt;b&gt;.stasis"), std::string::npos);
  EXPECT_NE(svg.find("zero &amp; more"), std::string::npos);
  EXPECT_NE(svg.find("width=\"6\" height=\"3\" fill=\"#090909\""), std::string::npos) << svg;
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
}

TEST(Picture, PngIsOne) {
  const auto png = to_png(picture(), "a.png");
  ASSERT_TRUE(png);
  EXPECT_EQ(std::memcmp(png->data(), "\x89PNG\r\n\x1a\n", 8), 0);
}

TEST(Glyphs, EveryCharacterOfALegendHasOne) {
  for (const char c : std::string_view("abcdefghijklmnopqrstuvwyzABCXYZ0123456789x .,:-+/_%()>"))
    EXPECT_NE(&glyph_of(c), &glyph_of('\x01')) << c;
}

}  // namespace
}  // namespace stasis::inspect
