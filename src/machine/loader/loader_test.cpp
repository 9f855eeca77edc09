#include "machine/loader/loader.hpp"

#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "machine/loader/bzimage.hpp"
#include "machine/loader/elf_kernel.hpp"
#include "machine/loader/guest_layout.hpp"
#include "machine/loader/linux64.hpp"
#include "machine/loader/lz4_payload.hpp"

using namespace stasis;
using namespace stasis::loader;
namespace {

constexpr u64 kRsdp = 0xe'0000;

template <class T>
void set(std::vector<u8>& bytes, u64 offset, T value) {
  ASSERT_LE(offset + sizeof value, bytes.size());
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

// The least bzImage that a loader takes: 4 setup sectors, then `kernel`.
std::vector<u8> bzimage(u64 preferred = 16 * kMiB, u32 init_size = 8 * kMiB, std::vector<u8> kernel = std::vector<u8>(0x1000, 0x90)) {
  kernel.resize(align_up(kernel.size(), 16));
  std::vector<u8> out(5 * 512);
  set<u8>(out, 0x1f1, 4);
  set<u32>(out, 0x1f4, static_cast<u32>(kernel.size() / 16));
  set<u16>(out, 0x1fe, 0xaa55);
  set<u8>(out, 0x200, 0xeb);
  set<u8>(out, 0x201, 0x6a);
  set<u32>(out, 0x202, 0x53726448);
  set<u16>(out, 0x206, 0x020f);
  set<u16>(out, 0x20e, 0x100);  // version text at 0x300
  std::memcpy(out.data() + 0x300, "6.1.0-test (us) #1", 19);
  set<u8>(out, 0x211, 1 | 2);  // LOADED_HIGH, and a flag that is the kernel's own
  set<u32>(out, 0x22c, 0x7fffffff);
  set<u32>(out, 0x230, 0x200000);
  set<u8>(out, 0x234, 1);
  set<u16>(out, 0x236, 0x7f);
  set<u32>(out, 0x238, 2047);
  set<u64>(out, 0x250, 0xdead);
  set<u64>(out, 0x258, preferred);
  set<u32>(out, 0x260, init_size);
  out.insert(out.end(), kernel.begin(), kernel.end());
  return out;
}

// An ELF kernel of one segment at 16 MiB, with the PVH note or without.
std::vector<u8> elf(bool pvh, u64 memory_size = 2 * kMiB) {
  std::vector<u8> out(0x1100, 0xcc);
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_EXEC;
  header.e_machine = EM_X86_64;
  header.e_entry = 16 * kMiB;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = pvh ? 2 : 1;
  set(out, 0, header);
  set(out, sizeof header, Elf64_Phdr{.p_type = PT_LOAD, .p_offset = 0x1000, .p_vaddr = 0xffffffff81000000, .p_paddr = 16 * kMiB,
                                     .p_filesz = 0x100, .p_memsz = memory_size, .p_align = 0x1000});
  set(out, sizeof header + sizeof(Elf64_Phdr), Elf64_Phdr{.p_type = PT_NOTE, .p_offset = 0x200, .p_filesz = 44, .p_align = 4});
  set(out, 0x200, Elf64_Nhdr{4, 2, 18});  // PHYS32_ENTRY of somebody else
  std::memcpy(out.data() + 0x20c, "GNU\0ab\0\0", 8);
  set(out, 0x214, Elf64_Nhdr{4, 8, 18});
  std::memcpy(out.data() + 0x220, "Xen\0", 4);
  set<u64>(out, 0x224, 16 * kMiB + 0x40);
  std::memcpy(out.data() + 0x1080, "Linux version 6.1.0-elf (us) #1\n", 33);
  return out;
}

struct Rig {
  explicit Rig(u64 size = 64 * kMiB) : memory(std::move(GuestMemory::create(size).value())) {}
  GuestMemory memory;
  BootImages images{.cmdline = "console=ttyS0"};

  Result<LoadedKernel> load(std::vector<u8> kernel) {
    images.kernel = std::move(kernel);
    return load_kernel(images, memory, kRsdp);
  }
  template <class T>
  T at(u64 address) {
    T value{};
    EXPECT_TRUE(memory.read(address, {reinterpret_cast<u8*>(&value), sizeof value}));
    return value;
  }
  std::string text_at(u64 address) { return reinterpret_cast<const char*>(memory.host() + memory.offset_of(address)); }
};

void expect_refused(const Result<LoadedKernel>& loaded, std::initializer_list<std::string_view> parts) {
  ASSERT_FALSE(loaded);
  const std::string text = loaded.error().text();
  for (const auto part : parts) EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks " << part;
}

TEST(MemoryMap, small_and_large_guests) {
  using E = MemoryMapEntry;
  const std::vector<E> low{{0, 0x9fc00, E::ram}, {0x9fc00, 0x400, E::reserved}, {0xe0000, 0x20000, E::reserved}};
  std::vector<E> want = low;
  want.push_back({kMiB, 63 * kMiB, E::ram});
  EXPECT_EQ(memory_map(Rig(64 * kMiB).memory), want);
  want = low;
  want.push_back({kMiB, 3 * kGiB - kMiB, E::ram});
  want.push_back({4 * kGiB, 3 * kGiB, E::ram});
  EXPECT_EQ(memory_map(Rig(6 * kGiB).memory), want);
  EXPECT_EQ(memory_map(Rig(kMiB).memory), low);
}

TEST(BzImage, starts_by_the_64_bit_protocol) {
  Rig rig;
  rig.images.initrd.assign(5000, 0x77);
  const auto loaded = rig.load(bzimage());
  ASSERT_TRUE(loaded) << loaded.error().text();
  EXPECT_EQ(loaded->protocol, BootProtocol::linux64);
  EXPECT_EQ(loaded->banner, "6.1.0-test (us) #1");
  const VcpuState& v = loaded->vcpu;
  EXPECT_EQ(v.rip, 16 * kMiB + 0x200);
  EXPECT_EQ(v.gpr[kRsi], kBootParamsAddress);
  EXPECT_EQ(v.rflags, 2u);
  EXPECT_EQ(v.efer, 0x500u);
  EXPECT_EQ(v.cr0, 0x8000'0011u);
  EXPECT_EQ(v.cr4, 0x20u);
  EXPECT_EQ(v.cs.selector, 0x10);
  EXPECT_TRUE(v.cs.long_mode() && v.cs.present() && !v.cs.big());
  for (const SegmentState* s : {&v.ds, &v.es, &v.ss}) EXPECT_EQ(s->selector, 0x18);
  EXPECT_EQ(rig.at<u64>(v.gdtr.base + 0x10), 0x00af'9b00'0000'ffffu);
  EXPECT_EQ(rig.at<u64>(v.gdtr.base + 0x18), 0x00cf'9300'0000'ffffu);
  EXPECT_EQ(v.gdtr.limit, 0x1f);

  EXPECT_EQ(rig.at<u8>(16 * kMiB), 0x90);
  EXPECT_EQ(rig.at<u8>(16 * kMiB + 0xfff), 0x90);
  const u64 bp = kBootParamsAddress;
  EXPECT_EQ(rig.at<u64>(bp + 0x70), kRsdp);
  EXPECT_EQ(rig.at<u32>(bp + 0x202), 0x53726448u);
  EXPECT_EQ(rig.at<u16>(bp + 0x206), 0x20f);
  EXPECT_EQ(rig.at<u8>(bp + 0x210), 0xff);
  EXPECT_EQ(rig.at<u8>(bp + 0x211), 1);
  EXPECT_EQ(rig.at<u64>(bp + 0x250), 0u);
  EXPECT_EQ(rig.at<u32>(bp + 0x260), 8 * kMiB);
  EXPECT_EQ(rig.at<u32>(bp + 0x218), 64 * kMiB - 8192);
  EXPECT_EQ(rig.at<u32>(bp + 0x21c), 5000u);
  EXPECT_EQ(rig.at<u8>(64 * kMiB - 8192 + 4999), 0x77);
  EXPECT_EQ(rig.text_at(rig.at<u32>(bp + 0x228)), "console=ttyS0");
  EXPECT_EQ(rig.at<u8>(bp + 0x1e8), 4);
  EXPECT_EQ(rig.at<u64>(bp + 0x2d0 + 60), kMiB);
  EXPECT_EQ(rig.at<u64>(bp + 0x2d0 + 68), 63 * kMiB);
  EXPECT_EQ(rig.at<u32>(bp + 0x2d0 + 76), 1u);
  EXPECT_EQ(rig.at<u16>(0x40e), 0x9fc0);
  EXPECT_EQ(rig.at<u16>(0x413), 639);
}

TEST(BzImage, page_tables_map_4_gib_onto_themselves) {
  Rig rig;
  const auto loaded = rig.load(bzimage());
  ASSERT_TRUE(loaded);
  for (const u64 address : {u64{0}, 16 * kMiB, 3 * kGiB - 1, 4 * kGiB - 1}) {
    const u64 pml4 = rig.at<u64>(loaded->vcpu.cr3 + (address >> 39 & 511) * 8);
    ASSERT_EQ(pml4 & 3, 3u);
    const u64 directory = rig.at<u64>((pml4 & ~0xfffull) + (address >> 30 & 511) * 8);
    ASSERT_EQ(directory & 3, 3u);
    const u64 page = rig.at<u64>((directory & ~0xfffull) + (address >> 21 & 511) * 8);
    EXPECT_EQ(page, align_down(address, 2 * kMiB) | 0x83);
  }
  EXPECT_EQ(rig.at<u64>(loaded->vcpu.cr3 + 8), 0u);
}

TEST(BzImage, places) {
  Rig rig;
  EXPECT_EQ(rig.load(bzimage(17 * kMiB))->vcpu.rip, 18 * kMiB + 0x200);  // aligned up to kernel_alignment
  std::vector<u8> fixed = bzimage(17 * kMiB);
  set<u8>(fixed, 0x234, 0);
  EXPECT_EQ(rig.load(fixed)->vcpu.rip, 17 * kMiB + 0x200);
  EXPECT_EQ(rig.load(bzimage(0))->vcpu.rip, 2 * kMiB + 0x200);
  std::vector<u8> usual = bzimage();
  set<u8>(usual, 0x1f1, 0);  // means 4
  EXPECT_TRUE(rig.load(usual));
}

TEST(BzImage, initrd_keeps_away_from_kernel_limit_and_hole) {
  Rig large(6 * kGiB);
  large.images.initrd.assign(4096, 1);
  std::vector<u8> any = bzimage();
  set<u32>(any, 0x22c, 0xffff'ffff);
  ASSERT_TRUE(large.load(any));
  EXPECT_EQ(large.at<u32>(kBootParamsAddress + 0x218), 3 * kGiB - 4096);
  ASSERT_TRUE(large.load(bzimage()));
  EXPECT_EQ(large.at<u32>(kBootParamsAddress + 0x218), 2 * kGiB - 4096);

  Rig small(24 * kMiB);  // the kernel's room ends where RAM does: only below it is place
  small.images.initrd.assign(3 * kMiB, 1);
  ASSERT_TRUE(small.load(bzimage()));
  EXPECT_EQ(small.at<u32>(kBootParamsAddress + 0x218), 13 * kMiB);
  small.images.initrd.assign(16 * kMiB, 1);
  expect_refused(small.load(bzimage()), {"initrd", "40 MiB", "24 MiB", "--memory 40M"});
  small.images.initrd.assign(16 * kMiB, 1);
  std::vector<u8> limited = bzimage();
  set<u32>(limited, 0x22c, 30 * kMiB);
  expect_refused(small.load(limited), {"initrd", "smaller initrd"});
}

TEST(BzImage, too_little_memory_says_how_much_it_takes) {
  Rig rig(20 * kMiB);
  const auto loaded = rig.load(bzimage());
  expect_refused(loaded, {"bzImage", "at least 24 MiB", "20 MiB", "--memory 24M"});
  EXPECT_EQ(loaded.error().code, ErrorCode::usage);
}

TEST(BzImage, command_line_limits) {
  Rig rig;
  rig.images.cmdline.assign(2047, 'x');
  EXPECT_TRUE(rig.load(bzimage()));
  rig.images.cmdline.assign(2048, 'x');
  expect_refused(rig.load(bzimage()), {"cmdline", "2048", "2047"});
  std::vector<u8> greedy = bzimage();
  set<u32>(greedy, 0x238, 0xffff'ffff);
  rig.images.cmdline.assign(4095, 'x');
  EXPECT_TRUE(rig.load(greedy));
  rig.images.cmdline.assign(4096, 'x');
  EXPECT_FALSE(rig.load(greedy));
  rig.images.cmdline = std::string("a\0b", 3);
  expect_refused(rig.load(greedy), {"cmdline", "zero byte"});
}

TEST(BzImage, refuses_by_field_and_value) {
  Rig rig;
  const auto with = [&](u64 offset, auto value) {
    std::vector<u8> image = bzimage();
    set(image, offset, value);
    return rig.load(image);
  };
  expect_refused(with(0x1fe, u16{0x1234}), {"bzImage", "boot_flag", "0x1234", "0xaa55"});
  expect_refused(with(0x206, u16{0x20b}), {"protocol is 2.11", "2.12", "vmlinux"});
  expect_refused(with(0x211, u8{0}), {"loadflags", "LOADED_HIGH"});
  expect_refused(with(0x236, u16{0x7e}), {"xloadflags", "XLF_KERNEL_64"});
  expect_refused(with(0x1f4, u32{0xffff'ffff}), {"syssize 0xffffffff", "cut short"});
  expect_refused(with(0x1f4, u32{0}), {"syssize"});
  expect_refused(with(0x1f1, u8{0xff}), {"setup_sects 255", "cut short"});
  expect_refused(with(0x230, u32{3}), {"kernel_alignment", "0x3", "power of two"});
  expect_refused(with(0x258, ~0ull), {"pref_address", "0xffffffffffffffff"});
  expect_refused(with(0x258, 3 * kGiB), {"pref_address"});
  expect_refused(with(0x258, 3 * kGiB - 1), {"pref_address"});
  expect_refused(with(0x260, u32{0xffff'ffff}), {"needs RAM up to", "damaged"});
  expect_refused(with(0x201, u8{0x10}), {"header length"});
  EXPECT_TRUE(with(0x201, u8{0xff}));       // capped: boot_params has no more room
  EXPECT_TRUE(with(0x20e, u16{0xffff}));    // a banner outside the file is none
  EXPECT_TRUE(with(0x24c, u32{0xffff'ffff}));
}

TEST(BzImage, every_truncation_is_refused) {
  Rig rig;
  const std::vector<u8> whole = bzimage();
  for (u64 size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(rig.load({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)})) << size;
  EXPECT_TRUE(rig.load(whole));
}

// Whatever the headers say, loading ends with a result, and a loaded kernel starts inside RAM.
void mutate(const std::vector<u8>& original, u64 header_end) {
  Rig rig;
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::vector<u8> image = original;
    for (u64 changes = 1 + random() % 4; changes > 0; --changes) {
      const u64 at = random() % header_end, width = 1ull << random() % 4;
      const u64 value = random() % 3 ? u64{random()} << 32 | random() : ~0ull >> random() % 64;
      for (u64 i = 0; i < width && at + i < image.size(); ++i) image[at + i] = static_cast<u8>(value >> 8 * i);
    }
    if (random() % 8 == 0) image.resize(random() % image.size());
    if (const auto loaded = rig.load(std::move(image))) {
      EXPECT_LT(loaded->vcpu.rip, rig.memory.size());
    }
  }
}
TEST(BzImage, mutated_headers_do_no_harm) { mutate(bzimage(), 0x270); }
TEST(ElfKernel, mutated_headers_do_no_harm) {
  mutate(elf(true), 0x230);
  mutate(elf(false), 0x230);
}

TEST(ElfKernel, starts_by_pvh) {
  Rig rig;
  rig.images.initrd.assign(100, 0x55);
  rig.memory.host()[16 * kMiB + 0x100] = 1;  // the guest's before a reset
  const auto loaded = rig.load(elf(true));
  ASSERT_TRUE(loaded) << loaded.error().text();
  EXPECT_EQ(loaded->protocol, BootProtocol::pvh);
  EXPECT_EQ(loaded->banner, "6.1.0-elf (us) #1");
  const VcpuState& v = loaded->vcpu;
  EXPECT_EQ(v.rip, 16 * kMiB + 0x40);
  EXPECT_EQ(v.cr0, 0x11u);
  EXPECT_EQ(v.cr4, 0u);
  EXPECT_EQ(v.efer, 0u);
  EXPECT_EQ(v.rflags, 2u);
  EXPECT_TRUE(v.cs.big() && !v.cs.long_mode());
  EXPECT_EQ(v.cs.limit, 0xffff'ffff);
  EXPECT_EQ(rig.at<u64>(v.gdtr.base + 0x10), 0x00cf'9b00'0000'ffffu);
  EXPECT_EQ(rig.at<u8>(16 * kMiB), 0xcc);
  EXPECT_EQ(rig.at<u8>(16 * kMiB + 0x100), 0);

  const u64 info = v.gpr[kRbx];
  EXPECT_EQ(rig.at<u32>(info), 0x336ec578u);
  EXPECT_EQ(rig.at<u32>(info + 4), 1u);
  EXPECT_EQ(rig.at<u32>(info + 12), 1u);
  const u64 module = rig.at<u64>(info + 16);
  EXPECT_EQ(rig.at<u64>(module), 64 * kMiB - 4096);
  EXPECT_EQ(rig.at<u64>(module + 8), 100u);
  EXPECT_EQ(rig.at<u8>(64 * kMiB - 4096 + 99), 0x55);
  EXPECT_EQ(rig.text_at(rig.at<u64>(info + 24)), "console=ttyS0");
  EXPECT_EQ(rig.at<u64>(info + 32), kRsdp);
  EXPECT_EQ(rig.at<u32>(info + 48), 4u);
  const u64 map = rig.at<u64>(info + 40);
  EXPECT_EQ(rig.at<u64>(map + 3 * 24), kMiB);
  EXPECT_EQ(rig.at<u64>(map + 3 * 24 + 8), 63 * kMiB);
  EXPECT_EQ(rig.at<u32>(map + 3 * 24 + 16), 1u);
}

TEST(ElfKernel, starts_by_the_64_bit_protocol_without_a_note) {
  Rig rig;
  const auto loaded = rig.load(elf(false));
  ASSERT_TRUE(loaded) << loaded.error().text();
  EXPECT_EQ(loaded->protocol, BootProtocol::linux64);
  EXPECT_EQ(loaded->vcpu.rip, 16 * kMiB);
  EXPECT_EQ(loaded->vcpu.efer, 0x500u);
  EXPECT_EQ(rig.at<u32>(kBootParamsAddress + 0x202), 0x53726448u);
  EXPECT_EQ(rig.at<u32>(kBootParamsAddress + 0x21c), 0u);
}

TEST(ElfKernel, refuses_by_field_and_value) {
  Rig rig;
  const auto with = [&](u64 offset, auto value) {
    std::vector<u8> image = elf(true);
    set(image, offset, value);
    return rig.load(image);
  };
  expect_refused(with(4, u8{1}), {"ELF", "EI_CLASS", "64-bit"});
  expect_refused(with(5, u8{2}), {"EI_DATA"});
  expect_refused(with(16, u16{1}), {"e_type"});
  expect_refused(with(18, u16{183}), {"e_machine", "0xb7", "x86-64"});
  expect_refused(with(54, u16{1}), {"e_phentsize"});
  expect_refused(with(56, u16{0}), {"e_phnum"});
  expect_refused(with(56, u16{0xffff}), {"e_phnum", "0xffff"});
  expect_refused(with(32, ~0ull), {"e_phoff"});
  expect_refused(with(64 + 8, ~0ull), {"segment 0", "p_offset"});
  expect_refused(with(64 + 32, ~0ull), {"segment 0", "p_filesz"});
  expect_refused(with(64 + 24, u64{0x7000}), {"segment 0", "p_paddr", "0x7000"});
  expect_refused(with(64 + 40, ~0ull), {"segment 0", "p_memsz"});
  expect_refused(with(64 + 40, u64{1}), {"p_filesz", "p_memsz"});
  expect_refused(with(64 + 56 + 32, ~0ull), {"segment 1", "p_filesz"});
  expect_refused(with(64, u32{0}), {"PT_LOAD"});
  expect_refused(with(0x224, u64{0x1234}), {"PVH note", "0x1234"});
  expect_refused(with(64 + 40, u64{64 * kMiB}), {"at least 80 MiB", "--memory 80M"});
}

TEST(Kernel, what_is_no_kernel) {
  Rig rig;
  expect_refused(rig.load({}), {"kernel", "empty"});
  expect_refused(rig.load(std::vector<u8>(5000)), {"unknown kind", "5000 bytes", "bzImage", "vmlinux"});
  expect_refused(rig.load({0x1f, 0x8b, 8, 0}), {"gzip", "unpack"});
  expect_refused(rig.load({'M', 'Z'}), {"EFI"});
}

// An LZ4 frame of literals only, in the shape of a Linux payload.
std::vector<u8> stored(const std::vector<u8>& data) {
  std::vector<u8> block{0xf0};
  u64 more = data.size() - 15;
  for (; more >= 255; more -= 255) block.push_back(255);
  block.push_back(static_cast<u8>(more));
  block.insert(block.end(), data.begin(), data.end());
  std::vector<u8> out{0x02, 0x21, 0x4c, 0x18, 0, 0, 0, 0};
  set(out, 4, static_cast<u32>(block.size()));
  out.insert(out.end(), block.begin(), block.end());
  out.resize(out.size() + 4);
  set(out, out.size() - 4, static_cast<u32>(data.size()));
  return out;
}

// "abc", then 9 bytes from 3 back, then "vwxyz" (a block's last five bytes are literals): 17 bytes.
const std::vector<u8> kSmallFrame{0x02, 0x21, 0x4c, 0x18, 12, 0, 0, 0, 0x35, 'a', 'b', 'c', 3, 0, 0x50, 'v', 'w', 'x', 'y', 'z', 17, 0, 0, 0};

TEST(Lz4Payload, literals_and_overlapping_matches) {
  const auto out = unpack_lz4(kSmallFrame);
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_EQ(std::string(out->begin(), out->end()), "abcabcabcabcvwxyz");
  EXPECT_EQ(unpack_lz4(stored(elf(true))).value(), elf(true));
}

TEST(Lz4Payload, several_blocks_follow_each_other) {
  std::vector<u8> frame(kSmallFrame.begin(), kSmallFrame.end() - 4);
  frame.insert(frame.end(), kSmallFrame.begin() + 4, kSmallFrame.end() - 4);
  frame.insert(frame.end(), {34, 0, 0, 0});
  const auto out = unpack_lz4(frame);
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_EQ(std::string(out->begin(), out->end()), "abcabcabcabcvwxyzabcabcabcabcvwxyz");
}

TEST(Lz4Payload, refuses_damage) {
  const std::vector<u8>& good = kSmallFrame;
  for (u64 size = 0; size < good.size(); ++size) EXPECT_FALSE(unpack_lz4(Bytes(good).first(size))) << size;
  const auto with = [&](u64 at, u8 value) {
    std::vector<u8> bytes = good;
    bytes[at] = value;
    return unpack_lz4(bytes);
  };
  EXPECT_FALSE(with(0, 0));
  EXPECT_FALSE(with(4, 0));      // an empty block
  EXPECT_FALSE(with(4, 13));     // a block beyond the end
  EXPECT_FALSE(with(7, 0x80));   // 2 GiB
  EXPECT_FALSE(with(8, 0x3f));   // the match's length goes on in the next bytes
  EXPECT_FALSE(with(8, 0xf5));   // more literals than the block has
  EXPECT_FALSE(with(12, 4));     // before the start
  EXPECT_FALSE(with(20, 16));    // unpacks to more than it says
  EXPECT_FALSE(with(20, 18));    // to less
  EXPECT_FALSE(with(23, 0xff));  // 4 GiB
}

TEST(BzImage, with_little_memory_the_kernel_inside_is_started) {
  const std::vector<u8> payload = stored(elf(true));
  std::vector<u8> kernel(0x400);
  kernel.insert(kernel.end(), payload.begin(), payload.end());
  std::vector<u8> image = bzimage(16 * kMiB, 50 * kMiB, kernel);
  set<u32>(image, 0x248, 0x400);
  set<u32>(image, 0x24c, static_cast<u32>(payload.size()));
  EXPECT_EQ(Rig(66 * kMiB).load(image)->protocol, BootProtocol::linux64);
  EXPECT_EQ(Rig(64 * kMiB).load(image)->protocol, BootProtocol::pvh);
  expect_refused(Rig(17 * kMiB).load(image), {"at least 18 MiB"});
}

}  // namespace
