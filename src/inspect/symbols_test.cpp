// Symbol files, honest and hostile, and where a kernel was moved to.
#include <gtest/gtest.h>

#include <elf.h>

#include "inspect/guest_sample.hpp"
#include "inspect/symbols.hpp"
#include "snapshot_memory.hpp"

namespace stasis::inspect {
namespace {

using snapshot::testing::MemorySource;

std::string refusal(const Result<Symbols>& symbols) { return symbols ? "accepted" : symbols.error().text(); }

TEST(SymbolText, ReadsSystemMapAndKallsyms) {
  const auto symbols = Symbols::from_text("0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\nffffffff81000040 t inner\n"
                                          "ffffffff81000040 T alias\nffffffff82000000 R linux_banner\nffffffffc0000000 t init\t[virtio]\n", "s");
  ASSERT_TRUE(symbols) << refusal(symbols);
  EXPECT_EQ(symbols->all().size(), 5u);  // a per-CPU offset is no address
  EXPECT_EQ(symbols->find("_text")->size, 0x40u);
  EXPECT_EQ(symbols->find("alias")->address, 0xffff'ffff'8100'0040u);
  EXPECT_EQ(symbols->find("linux_banner")->size, kMiB);  // the guess is bounded
  EXPECT_EQ(symbols->find("init")->name, "init");
  EXPECT_EQ(symbols->find("absent"), nullptr);
  EXPECT_EQ(symbols->place(0xffff'ffff'8100'0010), "_text+0x10/0x40");
  EXPECT_EQ(symbols->place(0xffff'ffff'8100'0000), "_text");
  EXPECT_EQ(symbols->place(0x1000), "");
  EXPECT_EQ(symbols->place(0xffff'ffff'8300'0000), "");
}

TEST(SymbolText, RefusesWhatIsNone) {
  EXPECT_NE(refusal(Symbols::from_text("ffffffff81000000 T _text\nno such line\n", "s")).find("line 2 is 'no such line'"), std::string::npos);
  for (const char* text : {"", "\n\n", "x", "ffff", "ffff T", "ffff T ", "ffffffffffffffffffff T a", "\x1b[2J", "12345678 TT a", "0000 T a\n0000 T b\n"})
    EXPECT_FALSE(Symbols::from_text(text, "s")) << text;
  EXPECT_NE(refusal(Symbols::from_text("0000000000000000 T a\n", "s")).find("kptr_restrict"), std::string::npos);
}

struct ElfParts {
  Elf64_Ehdr header{};
  std::vector<Elf64_Shdr> sections{3};
  std::vector<Elf64_Sym> symbols{3};
  std::string names{"\0main\0data\0", 11};

  ElfParts() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64, header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_machine = EM_X86_64, header.e_shoff = sizeof header, header.e_shentsize = sizeof(Elf64_Shdr), header.e_shnum = 3;
    sections[1] = {.sh_type = SHT_SYMTAB, .sh_offset = 4096, .sh_size = 3 * sizeof(Elf64_Sym), .sh_link = 2, .sh_entsize = sizeof(Elf64_Sym)};
    sections[2] = {.sh_type = SHT_STRTAB, .sh_offset = 8192, .sh_size = 11};
    symbols[1] = {.st_name = 1, .st_info = STT_FUNC, .st_shndx = 1, .st_value = 0x1000, .st_size = 16};
    symbols[2] = {.st_name = 6, .st_info = STT_OBJECT, .st_shndx = 1, .st_value = 0x2000, .st_size = 8};
  }
  MemorySource source() const {
    std::vector<u8> out(16384);
    std::memcpy(out.data(), &header, sizeof header);
    std::memcpy(out.data() + sizeof header, sections.data(), sections.size() * sizeof(Elf64_Shdr));
    std::memcpy(out.data() + 4096, symbols.data(), symbols.size() * sizeof(Elf64_Sym));
    std::memcpy(out.data() + 8192, names.data(), names.size());
    return MemorySource(std::move(out));
  }
};

TEST(SymbolElf, ReadsTheSymbolTable) {
  const auto symbols = Symbols::load(ElfParts().source(), "s");
  ASSERT_TRUE(symbols) << refusal(symbols);
  ASSERT_EQ(symbols->all().size(), 2u);
  EXPECT_EQ(symbols->find("main")->size, 16u);
  EXPECT_EQ(symbols->find("data")->address, 0x2000u);
}

TEST(SymbolElf, RefusesWhatDoesNotFit) {
  const auto refused = [](auto change, const char* says) {
    ElfParts parts;
    change(parts);
    const std::string text = refusal(Symbols::load(parts.source(), "s"));
    EXPECT_NE(text.find(says), std::string::npos) << text;
  };
  refused([](auto& p) { p.header.e_ident[EI_CLASS] = ELFCLASS32; }, "class 1");
  refused([](auto& p) { p.header.e_machine = EM_AARCH64; }, "machine 183");
  refused([](auto& p) { p.header.e_shoff = 0; }, "stripped");
  refused([](auto& p) { p.header.e_shoff = ~0ull - 8; }, "beyond its end");
  refused([](auto& p) { p.header.e_shoff = 16380; }, "beyond its end");
  refused([](auto& p) { p.header.e_shentsize = 1; }, "1 bytes");
  refused([](auto& p) { p.header.e_shnum = 0, p.sections[0].sh_size = ~0ull; }, "sections");
  refused([](auto& p) { p.sections[1].sh_type = 0; }, "stripped");
  refused([](auto& p) { p.sections[1].sh_size = ~0ull / 24 * 24; }, "allowed are");
  refused([](auto& p) { p.sections[1].sh_size = 24 * kMiB; }, "beyond its end");
  refused([](auto& p) { p.sections[1].sh_entsize = 0; }, "0 bytes");
  refused([](auto& p) { p.sections[1].sh_link = 77; }, "section 77");
  refused([](auto& p) { p.sections[2].sh_offset = ~0ull; }, "beyond its end");
  EXPECT_FALSE(Symbols::load(MemorySource({0x7f, 'E', 'L', 'F'}), "s"));
  ElfParts parts;
  parts.symbols[1].st_name = 0xffff'ffff;
  parts.sections[2].sh_size = 10;  // the last name has no end
  EXPECT_EQ(Symbols::load(parts.source(), "s")->all().size(), 0u);
}

TEST(Slide, IsWhereTheBannerIs) {
  using namespace testing;
  SampleRam ram(4 * kMiB);
  const u64 moved = 0xffff'ffff'9c40'0000;
  ram.entry(0x1000, 511, 0x2000 | kUsable);
  ram.entry(0x2000, moved >> 30 & 511, 0x3000 | kUsable);
  ram.entry(0x3000, moved >> 21 & 511, 0x20'0000 | 0x80 | kUsable);
  ram.put_text(0x20'0100, "Linux version 6.1");
  const auto linked = *Symbols::from_text("ffffffff81400100 R linux_banner\n", "s");
  EXPECT_EQ(slide_of(linked, ram.memory(), four_levels()), moved - 0xffff'ffff'8140'0000);
  EXPECT_EQ(slide_of(*Symbols::from_text("ffffffff9c400100 R linux_banner\n", "s"), ram.memory(), four_levels()), 0u);
  EXPECT_FALSE(slide_of(*Symbols::from_text("ffffffff81400200 R linux_banner\n", "s"), ram.memory(), four_levels()));
  EXPECT_FALSE(slide_of(*Symbols::from_text("ffffffff81400100 R other\n", "s"), ram.memory(), four_levels()));
}

}  // namespace
}  // namespace stasis::inspect
