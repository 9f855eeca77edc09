// x87, MMX and SSE where they meet the rest of the machine: checks, faults, MXCSR, the shared registers. Their results, at random,
// against the host: tests/differential.
#include <cmath>

#include "cpu/soft/instruction_test.hpp"
#include "cpu/soft/vector_approximate.hpp"

namespace stasis::soft {
namespace {

struct Guest : InstructionGuest {
  explicit Guest(bool long_mode = true) : InstructionGuest(long_mode) {
    s.fpu.fcw = 0x37f;
    s.fpu.ftw = 0;
    s.gpr[kRdi] = kData;
  }
  template <class T>
  void set_xmm(unsigned reg, unsigned lane, T value) { std::memcpy(s.fpu.xmm[reg].data() + lane * sizeof(T), &value, sizeof(T)); }
  template <class T>
  T xmm(unsigned reg, unsigned lane) const {
    T value;
    std::memcpy(&value, s.fpu.xmm[reg].data() + lane * sizeof(T), sizeof(T));
    return value;
  }
  void push(u64 mantissa, u16 sign_exponent) {
    std::rotate(s.fpu.st.begin(), s.fpu.st.end() - 1, s.fpu.st.end());
    const unsigned top = ((s.fpu.fsw >> 11) - 1) & 7;
    s.fpu.fsw = static_cast<u16>((s.fpu.fsw & ~0x3800) | top << 11);
    s.fpu.ftw |= static_cast<u8>(1 << top);
    std::memcpy(s.fpu.st[0].data(), &mantissa, 8);
    std::memcpy(s.fpu.st[0].data() + 8, &sign_exponent, 2);
  }
  u64 mantissa(unsigned i) const {
    u64 value;
    std::memcpy(&value, s.fpu.st[i].data(), 8);
    return value;
  }
};

constexpr u64 kOne = 1ull << 63;

TEST(Vector, UnalignedMovesTakeAnyAddressAlignedOnesRaise) {
  Guest g;
  g.put<u64>(Guest::kData + 0xffb, 0x1122'3344'5566'7788);  // across a page
  g.s.gpr[kRdi] = Guest::kData + 0xffb;
  g.run({0x0f, 0x10, 0x0f});  // movups xmm1, [rdi]
  EXPECT_EQ(g.xmm<u64>(1, 0), 0x1122'3344'5566'7788u);
  g.run({0x0f, 0x28, 0x17});  // movaps xmm2, [rdi]
  EXPECT_EQ(g.exception(), 13);
  EXPECT_EQ(g.xmm<u64>(2, 0), 0u);
  g.run({0x0f, 0x58, 0x0f});  // addps xmm1, [rdi]
  EXPECT_EQ(g.exception(), 13);
}

TEST(Vector, StoreIntoAnAbsentPageChangesNothing) {
  Guest g;
  g.set_xmm<u64>(3, 0, ~0ull);
  g.set_xmm<u64>(3, 1, ~0ull);
  g.s.gpr[kRdi] = Guest::kAbsent - 8;
  g.run({0x0f, 0x11, 0x1f});  // movups [rdi], xmm3
  EXPECT_EQ(g.exception(), 14);
  EXPECT_EQ(g.s.cr2, Guest::kAbsent);
  EXPECT_EQ(g.get<u64>(Guest::kAbsent - 8), 0u);
}

TEST(Vector, ControlRegistersForbid) {
  Guest g;
  g.s.cr0 |= kCr0Ts;
  EXPECT_EQ(g.run({0x0f, 0x57, 0xc0}).exception(), 7);  // xorps xmm0, xmm0
  EXPECT_EQ(g.run({0x0f, 0xef, 0xc0}).exception(), 7);  // pxor mm0, mm0
  EXPECT_EQ(g.run({0xd9, 0xe8}).exception(), 7);        // fld1
  g.s.cr0 ^= kCr0Ts | kCr0Em;
  EXPECT_EQ(g.run({0x0f, 0x57, 0xc0}).exception(), 6);
  EXPECT_EQ(g.run({0x0f, 0xef, 0xc0}).exception(), 6);
  EXPECT_EQ(g.run({0xd9, 0xe8}).exception(), 7);
  g.s.cr0 ^= kCr0Em;
  g.s.cr4 &= ~kCr4Osfxsr;
  EXPECT_EQ(g.run({0x0f, 0x57, 0xc0}).exception(), 6);
  EXPECT_EQ(g.run({0x0f, 0xef, 0xc0}).exception(), -1);
  EXPECT_EQ(g.run({0xd9, 0xe8}).exception(), -1);
}

TEST(Vector, FlagsCollectInMxcsrWhateverTheHostHad) {
  Guest g;
  g.set_xmm<double>(0, 0, 1);
  g.set_xmm<double>(1, 0, 4);
  _mm_setcsr(0x1fbf);  // flags of somebody else
  g.run({0xf2, 0x0f, 0x5e, 0xc1});  // divsd xmm0, xmm1
  EXPECT_EQ(g.xmm<double>(0, 0), 0.25);
  EXPECT_EQ(g.s.fpu.mxcsr, 0x1f80u);
  g.set_xmm<double>(1, 0, 3);
  g.run({0xf2, 0x0f, 0x5e, 0xc1});
  EXPECT_EQ(g.s.fpu.mxcsr, 0x1fa0u);
  g.run({0x0f, 0x28, 0xc0});  // movaps: leaves them
  EXPECT_EQ(g.s.fpu.mxcsr, 0x1fa0u);
}

TEST(Vector, RoundingIsTheGuestsAndTheHostKeepsItsOwn) {
  Guest g;
  g.s.fpu.mxcsr = 0x5f80;  // up
  g.set_xmm<double>(0, 0, 1);
  g.set_xmm<double>(1, 0, 3);
  g.run({0xf2, 0x0f, 0x5e, 0xc1});
  EXPECT_GT(g.xmm<double>(0, 0), 1.0 / 3);
  EXPECT_EQ(_mm_getcsr() & 0xffc0, 0x1f80u);
}

TEST(Vector, UnmaskedExceptionLeavesTheDestination) {
  Guest g;
  g.s.fpu.mxcsr = 0x1d80;  // ZM clear
  g.set_xmm<double>(0, 0, 7);
  g.run({0xf2, 0x0f, 0x5e, 0xc1});  // 7 / 0
  EXPECT_EQ(g.exception(), 19);
  EXPECT_EQ(g.xmm<double>(0, 0), 7.0);
  EXPECT_EQ(g.s.fpu.mxcsr, 0x1d84u);
  g.s.cr4 &= ~kCr4Osxmmexcpt;
  EXPECT_EQ(g.run({0xf2, 0x0f, 0x5e, 0xc1}).exception(), 6);
}

TEST(Vector, ComparisonSetsStatusFlags) {
  Guest g;
  g.s.rflags = 2 | kOf | kSf | kAf;
  g.set_xmm<float>(0, 0, 1.0f);
  g.set_xmm<float>(1, 0, 2.0f);
  g.run({0x0f, 0x2f, 0xc1});  // comiss xmm0, xmm1
  EXPECT_EQ(g.status(), kCf);
  g.set_xmm<float>(1, 0, NAN);
  g.run({0x0f, 0x2e, 0xc1});  // ucomiss
  EXPECT_EQ(g.status(), kCf | kPf | kZf);
}

TEST(Vector, StringCompareUsesImplicitRegisters) {
  Guest g;
  std::memcpy(g.s.fpu.xmm[1].data(), "abcdefghijklmnop", 16);
  g.s.fpu.xmm[2] = g.s.fpu.xmm[1];
  g.s.fpu.xmm[2][5] = '!';
  g.s.gpr[kRax] = g.s.gpr[kRdx] = 16;
  g.s.gpr[kRcx] = ~0ull;
  g.run({0x66, 0x0f, 0x3a, 0x61, 0xca, 0x18});  // pcmpestri xmm1, xmm2, equal each, negative
  EXPECT_EQ(g.s.gpr[kRcx], 5u);
  EXPECT_TRUE(g.s.rflags & kCf);
}

TEST(Vector, MmxTakesOverTheX87Registers) {
  Guest g;
  g.push(kOne, 0x3fff);
  g.push(kOne, 0x4000);  // TOP 6, ST(0) in R6, ST(1) in R7
  g.s.gpr[kRax] = 0x1234;
  g.run({0x48, 0x0f, 0x6e, 0xf8});  // movq mm7, rax: R7
  EXPECT_EQ(g.s.fpu.fsw & 0x3800, 0);
  EXPECT_EQ(g.s.fpu.ftw, 0xff);
  EXPECT_EQ(g.mantissa(7), 0x1234u);
  EXPECT_EQ(g.s.fpu.st[7][9], 0xff);
  EXPECT_EQ(g.mantissa(6), kOne);
  g.run({0x0f, 0x77});  // emms
  EXPECT_EQ(g.s.fpu.ftw, 0);
  EXPECT_EQ(g.mantissa(7), 0x1234u);
}

TEST(Vector, X87KeepsItsOwnPointersAndTheHostsUnitStaysClean) {
  Guest g;
  g.s.fpu.fcw = 0x37b;  // ZM clear
  g.push(kOne, 0x3fff);
  g.put<double>(Guest::kData, 0.0);
  g.run({0xdc, 0x37});  // fdiv qword [rdi]
  EXPECT_EQ(g.exception(), -1);
  EXPECT_EQ(g.s.fpu.fsw & 0x8084, 0x8084);
  EXPECT_EQ(g.s.fpu.fip, Guest::kCode);
  EXPECT_EQ(g.s.fpu.fdp, Guest::kData);
  EXPECT_EQ(g.s.fpu.fop, 0x437);
  EXPECT_EQ(g.mantissa(0), kOne);
  u16 host = 0;
  asm volatile("fnstsw %0" : "=a"(host));
  EXPECT_EQ(host & 0x80, 0);
  EXPECT_EQ(g.run({0xdf, 0xe0}).exception(), -1);  // fnstsw ax does not wait
  EXPECT_EQ(g.s.gpr[kRax] & 0x84, 0x84u);
  EXPECT_EQ(g.run({0xd9, 0xe8}).exception(), 16);  // fld1 does
  EXPECT_EQ(g.run({0x9b}).exception(), 16);
  EXPECT_EQ(g.run({0x0f, 0xef, 0xc0}).exception(), 16);
  EXPECT_EQ(g.run({0xdb, 0xe2}).exception(), -1);  // fnclex
  EXPECT_EQ(g.run({0xd9, 0xe8}).exception(), -1);
}

TEST(Vector, StoreOfAnInvalidValueWritesNothingWhenUnmasked) {
  Guest g;
  g.s.fpu.fcw = 0x37e;
  g.push(kOne, 0x7fff);  // infinity
  g.put<u32>(Guest::kData, 0xdddd'dddd);
  g.run({0xdb, 0x1f});  // fistp dword [rdi]
  EXPECT_EQ(g.get<u32>(Guest::kData), 0xdddd'ddddu);
  EXPECT_EQ(g.s.fpu.ftw, 0x80);
  g.s.fpu.fcw = 0x37f;
  g.s.fpu.fsw &= 0x3800;
  g.run({0xdb, 0x1f});
  EXPECT_EQ(g.get<u32>(Guest::kData), 0x8000'0000u);
  EXPECT_EQ(g.s.fpu.ftw, 0);
}

TEST(Vector, EnvironmentHasFullTagsAndMasksExceptions) {
  Guest g;
  g.s.fpu.fcw = 0x340;
  g.push(0, 0);          // R7: zero
  g.push(kOne, 0x3fff);  // R6: valid
  g.push(kOne, 0x7fff);  // R5: special
  g.run({0xd9, 0x37});   // fnstenv [rdi]
  EXPECT_EQ(g.get<u32>(Guest::kData + 8), 0xffff'4bffu);
  EXPECT_EQ(g.s.fpu.fcw, 0x37f);
  g.s.fpu.ftw = 0;
  g.run({0xd9, 0x27});  // fldenv [rdi]
  EXPECT_EQ(g.s.fpu.ftw, 0xe0);
  EXPECT_EQ(g.s.fpu.fcw, 0x340);
}

TEST(Vector, FxsaveAndFxrstorAreInverse) {
  Guest g;
  g.push(kOne, 0x4001);
  g.set_xmm<u64>(15, 1, 0x5555);
  g.s.fpu.mxcsr = 0x9fc0;
  g.run({0x48, 0x0f, 0xae, 0x07});  // fxsave64 [rdi]
  const FpuState saved = g.s.fpu;
  g.s.fpu = {};
  g.run({0x48, 0x0f, 0xae, 0x0f});
  EXPECT_EQ(g.s.fpu, saved);
  g.put<u32>(Guest::kData + 24, 0x1'0000);
  EXPECT_EQ(g.run({0x48, 0x0f, 0xae, 0x0f}).exception(), 13);
  EXPECT_EQ(g.s.fpu, saved);
  g.s.gpr[kRdi] += 8;
  EXPECT_EQ(g.run({0x48, 0x0f, 0xae, 0x07}).exception(), 13);
}

TEST(Vector, ThirtyTwoBitCodeSavesEightRegisters) {
  Guest g(false);
  g.set_xmm<u64>(7, 0, 0x7777);
  g.set_xmm<u64>(8, 0, 0x8888);
  g.run({0x0f, 0xae, 0x07});  // fxsave [edi]
  EXPECT_EQ(g.get<u64>(Guest::kData + 160 + 7 * 16), 0x7777u);
  EXPECT_EQ(g.get<u64>(Guest::kData + 160 + 8 * 16), 0u);
}

TEST(Vector, ApproximationsKeepTheirBound) {
  const auto value = [](u32 bits) { return static_cast<double>(std::bit_cast<float>(bits)); };
  for (u64 i = 0; i < 100'000; ++i) {
    const u32 x = static_cast<u32>((i * 0x9e37'79b9u) % 0x7d00'0000) + 0x0080'0000;  // normal, and so is 1/x
    const double reciprocal = value(approximate_reciprocal(x)), root = value(approximate_reciprocal_root(x));
    EXPECT_LE(std::fabs(reciprocal * value(x) - 1), 1.0 / 8192 + 1e-9) << std::hex << x;
    EXPECT_LE(std::fabs(root * root * value(x) - 1), 2.0 / 8192 + 1e-6) << std::hex << x;
  }
  EXPECT_EQ(approximate_reciprocal(0x3f80'0000), 0x3f80'0000u);
  EXPECT_EQ(approximate_reciprocal(0x8000'0001), 0xff80'0000u);  // a denormal is a zero
  EXPECT_EQ(approximate_reciprocal(0x7f00'0000), 0u);            // 2^-127 is too small
  EXPECT_EQ(approximate_reciprocal(0x7f80'0001), 0x7fc0'0001u);
  EXPECT_EQ(approximate_reciprocal_root(0xbf80'0000), 0xffc0'0000u);
  EXPECT_EQ(approximate_reciprocal_root(0x8000'0000), 0xff80'0000u);
  EXPECT_EQ(approximate_reciprocal_root(0x7f80'0000), 0u);
}

TEST(Vector, NotOfferedIsUndefined) {
  Guest g;
  EXPECT_EQ(g.run({0xc5, 0xf8, 0x57, 0xc0}).exception(), 6);              // vxorps
  EXPECT_EQ(g.run({0x66, 0x0f, 0x38, 0xdc, 0xc1}).exception(), 6);        // aesenc
  EXPECT_EQ(g.run({0x66, 0x0f, 0x3a, 0x44, 0xc1, 0x00}).exception(), 6);  // pclmulqdq
  EXPECT_EQ(g.run({0x0f, 0xae, 0x27}).exception(), 6);                    // xsave
}

TEST(Thunk, OneForEachInstructionWhateverItsRegisters) {
  ThunkCache cache;
  NormalForm add, multiply;
  for (const u8 byte : {0x0f, 0x58, 0xc1}) add.add(byte);
  for (const u8 byte : {0x0f, 0x59, 0xc1}) multiply.add(byte);
  const u64 first = cache.get(ThunkKind::vector, add);
  EXPECT_NE(cache.get(ThunkKind::vector, multiply), first);
  EXPECT_EQ(cache.get(ThunkKind::vector, add), first);
  const __m128 sum = _mm_castsi128_ps(reinterpret_cast<VectorCode>(first)(_mm_castps_si128(_mm_set1_ps(2)), _mm_castps_si128(_mm_set1_ps(3))));
  EXPECT_EQ(_mm_cvtss_f32(sum), 5.0f);
}

}  // namespace
}  // namespace stasis::soft
