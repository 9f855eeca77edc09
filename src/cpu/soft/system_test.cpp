// CPUID, MSRs, time, control registers, and 32-bit protected mode up to long mode.
#include "cpu/soft/tiny_guest.hpp"

SNIPPET(ask_cpuid, "cpuid; hlt");
SNIPPET(get_msr, "rdmsr; hlt");
SNIPPET(set_msr, "wrmsr; rdmsr; hlt");
SNIPPET(read_times, "rdtsc; mov rsi, rax; nop; nop; rdtscp; hlt");
SNIPPET(set_cr4, "mov cr4, rax; hlt");
SNIPPET(set_cr0, "mov cr0, rax; hlt");
SNIPPET(swap_bases, "swapgs; mov rax, gs:[0]; swapgs; hlt");
SNIPPET(limits, "lsl eax, ecx; setz bl; lar edx, ecx; verr cx; setz bh; hlt");

// As a PVH or Multiboot loader leaves it: flat 32-bit code without paging. Goes to long mode and back down to a halt.
SNIPPET32(to_long_mode, R"(
   mov ebx, 0x12345678
   push ebx
   pop ecx
   lea esi, [ecx+ecx]
   mov eax, cr4
   or eax, 0x20
   mov cr4, eax
   mov eax, 0x1000
   mov cr3, eax
   mov ecx, 0xc0000080
   rdmsr
   or eax, 0x100
   wrmsr
   mov eax, cr0
   or eax, 0x80000000
   mov cr0, eax
   .byte 0xea
   .long 0x10000 + 1f - to_long_mode_begin
   .word 8
1: .code64
   movabs rdi, 0x1122334455667788
   hlt
   .code32)");
SNIPPET32(segment_limits, R"(
   mov eax, [0x2000]
   mov eax, fs:[0xffc]
   mov eax, fs:[0xffd]
   hlt)");

namespace stasis::soft {
namespace {

VcpuState cpuid(u32 leaf, u32 subleaf = 0) {
  TinyGuest guest(CODE_OF(ask_cpuid));
  guest.state.gpr[kRax] = 0xffff'ffff'0000'0000 | leaf;
  guest.state.gpr[kRcx] = subleaf;
  return guest.finish();
}

TEST(System, CpuidShowsTheContract) {
  const VcpuState vendor = cpuid(0);
  EXPECT_EQ(vendor.gpr[kRax], 0x16u);
  EXPECT_EQ(vendor.gpr[kRbx], 0x756e'6547u);  // Genu
  EXPECT_EQ(vendor.gpr[kRdx], 0x4965'6e69u);  // ineI
  EXPECT_EQ(vendor.gpr[kRcx], 0x6c65'746eu);  // ntel
  const VcpuState features = cpuid(1, 7);
  EXPECT_EQ(features.gpr[kRax], VcpuState{}.gpr[kRdx]) << "EDX at reset is the same signature";
  EXPECT_TRUE(features.gpr[kRcx] >> 31 & 1) << "hypervisor";
  EXPECT_TRUE(features.gpr[kRdx] >> 9 & 1) << "APIC";
  EXPECT_FALSE(features.gpr[kRcx] >> 26 & 3) << "no XSAVE";
  EXPECT_EQ(cpuid(7, 1).gpr[kRbx], 0u);
  EXPECT_EQ(cpuid(0xb, 1).gpr[kRcx], 0x201u);
  EXPECT_EQ(cpuid(0x15).gpr[kRcx], 1'000'000'000u);
  EXPECT_EQ(cpuid(0x4000'0000).gpr[kRbx], 0x4b4d'564bu);  // KVMK
  EXPECT_EQ(cpuid(0x4000'0001).gpr[kRax], 0x0100'0009u);  // kvmclock, and that it is stable
  EXPECT_EQ(cpuid(0x1234).gpr[kRax], 0u);
  EXPECT_EQ(cpuid(0x8000'0008).gpr[kRax] & 0xff, 39u);
}

TEST(System, ReadsMsrs) {
  const auto read = [](u32 index) {
    TinyGuest guest(CODE_OF(get_msr));
    guest.state.gpr[kRcx] = index;
    guest.state.pat = 0x1234;
    const VcpuState s = guest.finish();
    return TinyGuest::vector_of(s) == 13 ? ~0ull : s.gpr[kRdx] << 32 | s.gpr[kRax];
  };
  EXPECT_EQ(read(0x277), 0x1234u);
  EXPECT_EQ(read(0xfe), 0x508u);
  EXPECT_EQ(read(0xc000'0080), 0xd00u);
  EXPECT_EQ(read(0x1b), 0xfee0'0900u);
  EXPECT_EQ(read(0x10a) & 1, 1u);
  EXPECT_EQ(read(0x12345), ~0ull) << "#GP";
  EXPECT_EQ(read(0x802), ~0ull) << "x2APIC registers need x2APIC mode";
}

TEST(System, WritesMsrsWithinTheirBits) {
  const auto write = [](u32 index, u64 value) {
    TinyGuest guest(CODE_OF(set_msr));
    guest.state.gpr[kRcx] = index;
    guest.state.gpr[kRax] = static_cast<u32>(value);
    guest.state.gpr[kRdx] = value >> 32;
    const VcpuState s = guest.finish();
    return TinyGuest::vector_of(s) == 13 ? ~0ull : s.gpr[kRdx] << 32 | s.gpr[kRax];
  };
  EXPECT_EQ(write(0xc000'0082, 0xffff'8000'0000'1000), 0xffff'8000'0000'1000u);
  EXPECT_EQ(write(0xc000'0082, 0x8000'0000'0000'0000), ~0ull);
  EXPECT_EQ(write(0xc000'0080, 0xd01), 0xd01u);
  EXPECT_EQ(write(0xc000'0080, 0xd00 ^ 0x100), ~0ull) << "LME cannot change under paging";
  EXPECT_EQ(write(0xc000'0080, 0x8000), ~0ull);
  EXPECT_EQ(write(0x277, 0x02), ~0ull);
  EXPECT_EQ(write(0x48, 1), 1u);
  EXPECT_EQ(write(0x48, 0x100), ~0ull);
  EXPECT_EQ(write(0x3b, 1000), 1000u);
  EXPECT_EQ(write(0x10a, 0), ~0ull);
}

TEST(System, TimeIsRetiredInstructions) {
  TinyGuest guest(CODE_OF(read_times));
  guest.clock.advance_to(5000);
  guest.state.tsc_offset = 100;
  guest.state.tsc_aux = 7;
  const VcpuState s = guest.finish();
  EXPECT_EQ(s.gpr[kRsi], 5100u);
  EXPECT_EQ(s.gpr[kRax], 5104u);
  EXPECT_EQ(s.gpr[kRcx], 7u);
}

TEST(System, ControlRegistersRefuseWhatIsImpossible) {
  const auto vector = [](Bytes code, u64 value) {
    TinyGuest guest(code);
    guest.state.gpr[kRax] = value;
    return TinyGuest::vector_of(guest.finish());
  };
  EXPECT_EQ(vector(CODE_OF(set_cr4), 0x6a0), -1);
  EXPECT_EQ(vector(CODE_OF(set_cr4), 0x600), 13) << "PAE under long mode";
  EXPECT_EQ(vector(CODE_OF(set_cr4), 0x4'0620), 13) << "OSXSAVE is not offered";
  EXPECT_EQ(vector(CODE_OF(set_cr0), 0x8000'0000), 13) << "paging without protection";
  EXPECT_EQ(vector(CODE_OF(set_cr0), 0x0000'0033), 13) << "64-bit code under no paging";
}

TEST(System, SwapgsExchangesBases) {
  TinyGuest guest(CODE_OF(swap_bases));
  guest.state.gs.base = 0x20000;
  guest.state.kernel_gs_base = 0x21000;
  guest.put(0x21000, 77);
  const VcpuState s = guest.finish();
  EXPECT_EQ(s.gpr[kRax], 77u);
  EXPECT_EQ(s.gs.base, 0x20000u);
  EXPECT_EQ(s.kernel_gs_base, 0x21000u);
}

TEST(System, SelectorsCanBeLookedAt) {
  TinyGuest guest(CODE_OF(limits));
  guest.state.gpr[kRcx] = 0x10;
  VcpuState s = guest.finish();
  EXPECT_EQ(s.gpr[kRax], 0xffff'ffffu);
  EXPECT_EQ(s.gpr[kRdx], 0x00cf'9300u & 0x00f0'ff00);
  EXPECT_EQ(s.gpr[kRbx], 0x101u);
  TinyGuest none(CODE_OF(limits));
  none.state.gpr[kRcx] = 0x40;
  none.state.gpr[kRax] = 5;
  s = none.finish();
  EXPECT_EQ(s.gpr[kRax], 5u);
  EXPECT_EQ(s.gpr[kRbx], 0u);
}

void protect(TinyGuest& guest) {
  guest.state.cr0 = 0x11;
  guest.state.cr4 = 0;
  guest.state.efer = 0;
  guest.state.cr3 = 0;
  guest.state.cs = {.selector = 0x18, .attributes = 0xc9b, .limit = ~0u, .base = 0};
}

TEST(System, From32BitCodeToLongMode) {
  TinyGuest guest(CODE_OF(to_long_mode));
  protect(guest);
  const VcpuState s = guest.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), -1);
  EXPECT_EQ(s.gpr[kRsi], 0x2468'acf0u);
  EXPECT_EQ(s.gpr[kRdi], 0x1122'3344'5566'7788u);
  EXPECT_EQ(s.efer, kEferLme | kEferLma);
  EXPECT_EQ(s.cs.selector, 8u);
}

TEST(System, SegmentLimitsHoldIn32BitCode) {
  TinyGuest guest(CODE_OF(segment_limits));
  protect(guest);
  guest.state.fs = {.selector = 0x10, .attributes = 0x493, .limit = 0xfff, .base = 0x30000};
  guest.put(0x30ffc, 0xabcd);
  for (u64 v = 0; v < 32; ++v)  // 32-bit interrupt gates
    guest.put(0x9000 + v * 8, (TinyGuest::kHandlers + v * 16) | 0x18ull << 16 | 0x8e00ull << 32);
  const VcpuState s = guest.finish();
  EXPECT_EQ(TinyGuest::vector_of(s), 13);
  EXPECT_EQ(s.gpr[kRax], 0xabcdu);
  EXPECT_EQ(s.gpr[kRsp], 0xd000u - 16);
  EXPECT_EQ(guest.peek(s.gpr[kRsp]) & 0xffff'ffff, 0u);
}

}  // namespace
}  // namespace stasis::soft
