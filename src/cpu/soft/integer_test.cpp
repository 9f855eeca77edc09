// Integer instructions where they are easy to get wrong. All of them, at random, against the host: tests/differential.
#include "cpu/soft/instruction_test.hpp"

namespace stasis::soft {
namespace {

using Guest = InstructionGuest;

TEST(Integer, AddSetsTheFlagsOfItsWidth) {
  Guest g;
  g.s.gpr[kRax] = 0xffff'ffff'ffff'ff7f;
  g.run({0x04, 0x01});  // add al, 1
  EXPECT_EQ(g.s.gpr[kRax], 0xffff'ffff'ffff'ff80);
  EXPECT_EQ(g.status(), kOf | kSf | kAf);
  g.run({0x83, 0xc0, 0x7f});  // add eax, 0x7f: the upper half goes
  EXPECT_EQ(g.s.gpr[kRax], 0xffff'ffffu);
  g.run({0x83, 0xc0, 0x01});
  EXPECT_EQ(g.s.gpr[kRax], 0u);
  EXPECT_EQ(g.status(), kCf | kZf | kPf | kAf);
}

TEST(Integer, CarryGoesThroughAdcAndSurvivesInc) {
  Guest g;
  g.s.rflags = 2 | kCf;
  g.s.gpr[kRbx] = ~0ull;
  g.run({0x48, 0x83, 0xd3, 0x00});  // adc rbx, 0
  EXPECT_EQ(g.s.gpr[kRbx], 0u);
  EXPECT_EQ(g.status(), kCf | kZf | kPf | kAf);
  g.run({0x48, 0xff, 0xc3});  // inc rbx
  EXPECT_EQ(g.status(), kCf);
  g.run({0x48, 0x19, 0xdb});  // sbb rbx, rbx
  EXPECT_EQ(g.s.gpr[kRbx], ~0ull);
}

TEST(Integer, HighByteRegistersWithoutRexOnly) {
  Guest g;
  g.s.gpr[kRax] = 0x1122;
  g.s.gpr[kRsp] = Guest::kStack + 0x55;
  g.run({0x88, 0xe3});  // mov bl, ah
  EXPECT_EQ(g.s.gpr[kRbx], 0x11u);
  g.run({0x40, 0x88, 0xe3});  // mov bl, spl
  EXPECT_EQ(g.s.gpr[kRbx], 0x55u);
}

TEST(Integer, ReadModifyWriteAcrossAPageAndIntoOneThatIsAbsent) {
  Guest g;
  g.put<u64>(0x20ffc, ~0ull);
  g.s.gpr[kRdi] = 0x20ffc;
  g.run({0xf0, 0x48, 0x83, 0x07, 0x02});  // lock add qword [rdi], 2
  EXPECT_EQ(g.get<u64>(0x20ffc), 1u);
  g.s.gpr[kRdi] = Guest::kAbsent - 4;
  g.put<u32>(Guest::kAbsent - 4, 0x1234);
  g.run({0x48, 0x83, 0x07, 0x02}, 1);  // the fault does not retire, the HLT of its handler does
  EXPECT_EQ(g.exception(), 14);
  EXPECT_EQ(g.s.cr2, Guest::kAbsent);
  EXPECT_EQ(g.get<u32>(Guest::kAbsent - 4), 0x1234u);
}

TEST(Integer, LockNeedsAMemoryDestination) {
  Guest g;
  EXPECT_EQ(g.run({0xf0, 0x01, 0xd8}).exception(), 6);        // lock add eax, ebx
  Guest h;
  h.s.gpr[kRdi] = Guest::kData;
  EXPECT_EQ(h.run({0xf0, 0x87, 0x07}).exception(), -1);       // lock xchg [rdi], eax
  EXPECT_EQ(Guest().run({0xf0, 0x8b, 0x04, 0x25, 0, 0, 2, 0}).exception(), 6);  // lock mov
}

TEST(Integer, DivideErrorsChangeNothing) {
  for (const u8 modrm : {0xf3, 0xfb}) {  // div rbx, idiv rbx
    Guest g;
    g.s.gpr[kRax] = 5, g.s.gpr[kRdx] = 3, g.s.gpr[kRbx] = 3;
    g.run({0x48, 0xf7, modrm});
    EXPECT_EQ(g.exception(), 0) << int{modrm};
    EXPECT_EQ(g.s.gpr[kRax], 5u);
    EXPECT_EQ(g.s.gpr[kRdx], 3u);
    EXPECT_EQ(g.get<u64>(g.s.gpr[kRsp]), Guest::kCode);  // a fault: the return address is the instruction
  }
}

TEST(Integer, SignedDivisionByMagnitudes) {
  Guest g;
  g.s.gpr[kRax] = static_cast<u64>(-7), g.s.gpr[kRdx] = ~0ull, g.s.gpr[kRbx] = 2;
  g.run({0x48, 0xf7, 0xfb});
  EXPECT_EQ(static_cast<i64>(g.s.gpr[kRax]), -3);
  EXPECT_EQ(static_cast<i64>(g.s.gpr[kRdx]), -1);
  // the least quotient fits, its negation does not
  g.s.gpr[kRax] = 1ull << 63, g.s.gpr[kRdx] = ~0ull, g.s.gpr[kRbx] = 1;
  EXPECT_EQ(g.run({0x48, 0xf7, 0xfb}).exception(), -1);
  EXPECT_EQ(g.s.gpr[kRax], 1ull << 63);
  g.s.gpr[kRdx] = ~0ull, g.s.gpr[kRbx] = ~0ull;
  EXPECT_EQ(g.run({0x48, 0xf7, 0xfb}).exception(), 0);
}

TEST(Integer, ShiftCountsAreMaskedAndZeroLeavesTheFlags) {
  Guest g;
  g.s.rflags = 2 | kCf | kZf;
  g.s.gpr[kRax] = 0x1'0000'0001, g.s.gpr[kRcx] = 32;
  g.run({0xd3, 0xe0});  // shl eax, cl
  EXPECT_EQ(g.s.gpr[kRax], 1u);
  EXPECT_EQ(g.status(), kCf | kZf);
  g.s.gpr[kRcx] = 65;
  g.run({0x48, 0xd3, 0xe0});  // shl rax, cl
  EXPECT_EQ(g.s.gpr[kRax], 2u);
  EXPECT_EQ(g.status(), 0u);
}

TEST(Integer, UndefinedShiftFlagsAreOurs) {
  Guest g;
  g.s.gpr[kRax] = 0xc000'0000'0000'0000;
  g.run({0x48, 0xc1, 0xe0, 0x02});  // shl rax, 2: CF and OF from the result
  EXPECT_EQ(g.status(), kCf | kOf | kZf | kPf);
  g.s.gpr[kRax] = 0x1234, g.s.gpr[kRbx] = 0xabcd;
  g.run({0x66, 0x0f, 0xa4, 0xd8, 20});  // shld ax, bx, 20
  EXPECT_EQ(g.s.gpr[kRax], 0xbcd1u);
}

TEST(Integer, RotateThroughCarry) {
  Guest g;
  g.s.rflags = 2 | kCf;
  g.s.gpr[kRax] = 0x80;
  g.run({0xc0, 0xd0, 0x02});  // rcl al, 2
  EXPECT_EQ(g.s.gpr[kRax], 0x03u);
  EXPECT_EQ(g.status() & kCf, 0u);
  g.run({0xc0, 0xd8, 0x09});  // rcr al, 9: once round
  EXPECT_EQ(g.s.gpr[kRax], 0x03u);
}

TEST(Integer, BitStringsReachBeyondTheirOperand) {
  Guest g;
  g.s.gpr[kRdi] = Guest::kData, g.s.gpr[kRax] = static_cast<u64>(-1);
  g.run({0x48, 0x0f, 0xab, 0x07});  // bts [rdi], rax
  EXPECT_EQ(g.get<u64>(Guest::kData - 8), 1ull << 63);
  EXPECT_EQ(g.status() & kCf, 0u);
  g.run({0x48, 0x0f, 0xa3, 0x07});  // bt
  EXPECT_EQ(g.status() & kCf, kCf);
  g.run({0x48, 0x0f, 0xba, 0x77, 0xf8, 0x7f});  // btr qword [rdi-8], 127: the immediate is cut
  EXPECT_EQ(g.get<u64>(Guest::kData - 8), 0u);
}

TEST(Integer, ScanOfZeroKeepsTheDestination) {
  Guest g;
  g.s.gpr[kRax] = 0x1234'5678'9abc'def0;
  g.run({0x0f, 0xbc, 0xc3});  // bsf eax, ebx
  EXPECT_EQ(g.s.gpr[kRax], 0x1234'5678'9abc'def0u);
  EXPECT_EQ(g.status(), kZf);
  g.s.gpr[kRbx] = 0x30;
  g.run({0xf3, 0x0f, 0xbd, 0xc3});  // LZCNT of a processor without it: bsr
  EXPECT_EQ(g.s.gpr[kRax], 5u);
}

TEST(Integer, CompareExchange) {
  Guest g;
  g.s.gpr[kRdi] = Guest::kData, g.s.gpr[kRax] = 1, g.s.gpr[kRbx] = 7;
  g.put<u64>(Guest::kData, 2);
  g.run({0xf0, 0x48, 0x0f, 0xb1, 0x1f});  // lock cmpxchg [rdi], rbx
  EXPECT_EQ(g.s.gpr[kRax], 2u);
  EXPECT_EQ(g.status(), kCf | kSf | kPf | kAf);
  g.run({0xf0, 0x48, 0x0f, 0xb1, 0x1f});
  EXPECT_EQ(g.get<u64>(Guest::kData), 7u);
  EXPECT_EQ(g.status(), kZf | kPf);
}

TEST(Integer, CompareExchange16MustBeAligned) {
  Guest g;
  g.s.gpr[kRdi] = Guest::kData;
  g.s.gpr[kRbx] = 3, g.s.gpr[kRcx] = 4;
  g.run({0xf0, 0x48, 0x0f, 0xc7, 0x0f});  // lock cmpxchg16b [rdi]
  EXPECT_EQ(g.get<u64>(Guest::kData), 3u);
  EXPECT_EQ(g.get<u64>(Guest::kData + 8), 4u);
  g.s.gpr[kRdi] += 8;
  EXPECT_EQ(g.run({0xf0, 0x48, 0x0f, 0xc7, 0x0f}).exception(), 13);
}

TEST(Integer, PopWithTheStackPointer) {
  Guest g;
  g.run({0x54});  // push rsp: the old value
  EXPECT_EQ(g.get<u64>(Guest::kStack - 8), Guest::kStack);
  g.put<u64>(Guest::kStack - 8, 0x77);
  g.run({0x8f, 0x04, 0x24});  // pop [rsp]: the new RSP is the address
  EXPECT_EQ(g.get<u64>(Guest::kStack), 0x77u);
  EXPECT_EQ(g.s.gpr[kRsp], Guest::kStack);
  g.put<u64>(Guest::kStack, 0x20000);
  g.run({0x5c});  // pop rsp
  EXPECT_EQ(g.s.gpr[kRsp], 0x20000u);
}

TEST(Integer, AFaultingPopKeepsTheStackPointer) {
  Guest g;
  g.s.gpr[kRdi] = Guest::kAbsent;
  g.run({0x8f, 0x07});
  EXPECT_EQ(g.exception(), 14);
  EXPECT_EQ(g.get<u64>(g.s.gpr[kRsp] + 32), Guest::kStack);  // RSP in the frame
}

TEST(Integer, TheStackFaultsAsTheStack) {
  Guest g;
  g.s.gpr[kRdi] = Guest::kData, g.s.gpr[kRsp] = 1ull << 47;
  g.run({0x8f, 0x07});  // pop [rdi]: no frame can be pushed, so a double and a triple fault follow; nothing is stored
  EXPECT_EQ(g.s.activity, Activity::shutdown);
  Guest h;
  h.s.gpr[kRdi] = 1ull << 47;
  EXPECT_EQ(h.run({0xff, 0x37}).exception(), 13);  // push [rdi]
  Guest i;
  i.s.gpr[kRbp] = 1ull << 47;
  EXPECT_EQ(i.run({0xc9}).exception(), 12);  // leave
}

TEST(Integer, SixteenBitMovsxdReadsTwoBytes) {
  Guest g;
  g.s.gpr[kRdi] = Guest::kAbsent - 2;
  g.put<u16>(Guest::kAbsent - 2, 0x8765);
  EXPECT_EQ(g.run({0x66, 0x63, 0x07}).exception(), -1);
  EXPECT_EQ(g.s.gpr[kRax], 0x8765u);
}

TEST(Integer, EnterWithNesting) {
  Guest g;
  g.s.gpr[kRbp] = Guest::kData;
  g.put<u64>(Guest::kData - 8, 0x1111);
  g.run({0xc8, 0x20, 0x00, 0x02});  // enter 32, 2
  EXPECT_EQ(g.s.gpr[kRbp], Guest::kStack - 8);
  EXPECT_EQ(g.s.gpr[kRsp], Guest::kStack - 24 - 32);
  EXPECT_EQ(g.get<u64>(Guest::kStack - 16), 0x1111u);
  EXPECT_EQ(g.get<u64>(Guest::kStack - 24), Guest::kStack - 8);
  g.run({0xc9});  // leave
  EXPECT_EQ(g.s.gpr[kRsp], Guest::kStack);
  EXPECT_EQ(g.s.gpr[kRbp], Guest::kData);
}

TEST(Integer, ASibWithoutBaseHasNoneWhateverRexSays) {
  Guest g;
  g.s.gpr[kR13] = 0x40;
  g.s.gpr[kRax] = 1;
  g.put<u32>(Guest::kData + 4, 0xabc);
  g.run({0x67, 0x41, 0x8b, 0x1c, 0x85, 0, 0, 2, 0});  // mov ebx, [eax*4 + 0x20000]
  EXPECT_EQ(g.s.gpr[kRbx], 0xabcu);
}

TEST(Integer, LeaIgnoresSegmentBases) {
  Guest g;
  g.s.gs.base = 0x1000;
  g.put<u32>(Guest::kData + 0x1000, 0x99);
  g.s.gpr[kRdi] = Guest::kData;
  g.run({0x65, 0x8b, 0x07});  // mov eax, gs:[rdi]
  EXPECT_EQ(g.s.gpr[kRax], 0x99u);
  g.run({0x65, 0x48, 0x8d, 0x07});  // lea rax, gs:[rdi]
  EXPECT_EQ(g.s.gpr[kRax], Guest::kData);
}

TEST(Integer, Legacy32) {
  Guest g(false);
  g.s.gpr[kRax] = 0x19, g.s.rflags = 2;
  g.run({0x04, 0x28, 0x27}, 2);  // add al, 0x28; daa
  EXPECT_EQ(g.s.gpr[kRax], 0x47u);
  for (unsigned i = 0; i < 8; ++i) if (i != kRsp) g.s.gpr[i] = i;
  g.run({0x60});  // pusha
  EXPECT_EQ(g.s.gpr[kRsp], Guest::kStack - 32);
  EXPECT_EQ(g.get<u32>(Guest::kStack - 20), Guest::kStack);
  EXPECT_EQ(g.get<u32>(Guest::kStack - 32), kRdi);
  g.s.gpr[kRdx] = 0;
  g.run({0x61});  // popa
  EXPECT_EQ(g.s.gpr[kRsp], Guest::kStack);
  EXPECT_EQ(g.s.gpr[kRdx], kRdx);
  g.put<u64>(Guest::kData, 5ull << 32 | 0xffff'fffe);  // -2 .. 5
  g.s.gpr[kRdi] = Guest::kData, g.s.gpr[kRax] = ~0u;
  EXPECT_EQ(g.run({0x62, 0x07}).exception(), -1);  // bound eax, [edi]
  g.s.gpr[kRax] = 6;
  EXPECT_EQ(g.run({0x62, 0x07}).exception(), 5);
}

}  // namespace
}  // namespace stasis::soft
