// String instructions: counting, stopping between iterations, faults half way, overlaps.
#include "cpu/soft/instruction_test.hpp"

namespace stasis::soft {
namespace {

using Guest = InstructionGuest;

TEST(String, EachIterationIsOneInstruction) {
  Guest g;
  g.s.gpr[kRdi] = Guest::kData, g.s.gpr[kRcx] = 10'000, g.s.gpr[kRax] = 0x5a;
  g.run({0xf3, 0xaa, 0x90}, 6'000);  // rep stosb; nop
  EXPECT_EQ(g.s.rip, Guest::kCode);
  EXPECT_EQ(g.s.gpr[kRcx], 4'000u);
  EXPECT_EQ(g.s.gpr[kRdi], Guest::kData + 6'000);
  EXPECT_EQ(g.get<u8>(Guest::kData + 5'999), 0x5a);
  EXPECT_EQ(g.get<u8>(Guest::kData + 6'000), 0);
  g.run({0xf3, 0xaa, 0x90}, 4'000);
  EXPECT_EQ(g.s.rip, Guest::kCode + 2);
  EXPECT_EQ(g.s.gpr[kRcx], 0u);
  EXPECT_EQ(g.s.retired, 10'000u);
}

TEST(String, ACountOfZeroIsOneInstructionThatDoesNothing) {
  Guest g;
  g.s.gpr[kRdi] = Guest::kAbsent;
  g.run({0xf3, 0x48, 0xab});
  EXPECT_EQ(g.s.rip, Guest::kCode + 3);
  EXPECT_EQ(g.s.gpr[kRdi], Guest::kAbsent);
}

TEST(String, AFaultHalfWayKeepsWhatWasDone) {
  Guest g;
  g.s.gpr[kRsi] = Guest::kData, g.s.gpr[kRdi] = Guest::kAbsent - 5'000 * 4 - 2, g.s.gpr[kRcx] = 6'000;
  g.put<u32>(Guest::kData + 4'999 * 4, 0x1234'5678);
  g.run({0xf3, 0xa5}, 5'000);  // rep movsd
  EXPECT_EQ(g.s.rip, Guest::kCode);
  g.engine.run(5'001);  // the fault, and the HLT of its handler
  g.s = g.engine.get();
  EXPECT_EQ(g.exception(), 14);
  EXPECT_EQ(g.s.cr2, Guest::kAbsent);
  EXPECT_EQ(g.s.gpr[kRcx], 1'000u);
  EXPECT_EQ(g.s.gpr[kRsi], Guest::kData + 20'000);
  EXPECT_EQ(g.s.gpr[kRdi], Guest::kAbsent - 2);
  EXPECT_EQ(g.get<u32>(Guest::kAbsent - 6), 0x1234'5678u);
}

TEST(String, OverlapForwardRepeatsThePattern) {
  Guest g;
  g.put<u16>(Guest::kData, 0x0201);
  g.s.gpr[kRsi] = Guest::kData, g.s.gpr[kRdi] = Guest::kData + 2, g.s.gpr[kRcx] = 9'000;
  g.run({0xf3, 0xa4}, 9'000);
  for (u64 i = 0; i < 9'002; i += 2) ASSERT_EQ(g.get<u16>(Guest::kData + i), 0x0201) << i;
}

TEST(String, BackwardsWithTheDirectionFlag) {
  Guest g;
  for (u64 i = 0; i < 5'000; ++i) g.put<u8>(Guest::kData + i, static_cast<u8>(i * 7));
  g.s.rflags = 2 | kDf;
  g.s.gpr[kRsi] = Guest::kData + 4'999, g.s.gpr[kRdi] = Guest::kData + 5'002, g.s.gpr[kRcx] = 5'000;
  g.run({0xf3, 0xa4}, 5'000);
  for (u64 i = 0; i < 5'000; ++i) ASSERT_EQ(g.get<u8>(Guest::kData + 3 + i), static_cast<u8>(i * 7)) << i;
  EXPECT_EQ(g.s.gpr[kRsi], Guest::kData - 1);
}

TEST(String, CompareStopsBehindTheDifference) {
  Guest g;
  g.put<u8>(Guest::kData + 7'000, 9);
  g.s.gpr[kRsi] = Guest::kData, g.s.gpr[kRdi] = Guest::kData + 0x8000, g.s.gpr[kRcx] = 8'000;
  g.run({0xf3, 0xa6, 0x90}, 7'001);  // repe cmpsb
  EXPECT_EQ(g.s.rip, Guest::kCode + 2);
  EXPECT_EQ(g.s.gpr[kRcx], 999u);
  EXPECT_EQ(g.s.gpr[kRsi], Guest::kData + 7'001);
  EXPECT_EQ(g.status(), kPf);
}

TEST(String, ScanFindsAndKeepsTheFlagsOfTheLastIteration) {
  Guest g;
  g.put<u8>(Guest::kData + 300, 'x');
  g.s.gpr[kRdi] = Guest::kData, g.s.gpr[kRcx] = ~0ull, g.s.gpr[kRax] = 'x';
  g.run({0xf2, 0xae, 0x90}, 100);  // repne scasb
  EXPECT_EQ(g.s.rip, Guest::kCode);
  EXPECT_EQ(g.status(), kPf);  // 'x' - 0
  g.run({0xf2, 0xae, 0x90}, 201);
  EXPECT_EQ(g.s.rip, Guest::kCode + 2);
  EXPECT_EQ(g.s.gpr[kRdi], Guest::kData + 301);
  EXPECT_EQ(g.status(), kZf | kPf);
}

TEST(String, ThirtyTwoBitAddressesWrapAndCutTheRegisters) {
  Guest g;
  g.s.gpr[kRdi] = 0x1'0000'0000 | Guest::kData, g.s.gpr[kRcx] = 0x7'0000'0003, g.s.gpr[kRax] = 0x77;
  g.run({0x67, 0xf3, 0xaa}, 3);
  EXPECT_EQ(g.s.gpr[kRdi], Guest::kData + 3);
  EXPECT_EQ(g.s.gpr[kRcx], 0u);
  EXPECT_EQ(g.get<u32>(Guest::kData), 0x77'7777u);
}

TEST(String, ARepThatOverwritesItselfIsFetchedAgain) {
  for (const u64 step : {1, 3}) {
    Guest g;
    g.s.gpr[kRdi] = Guest::kCode - 1, g.s.gpr[kRcx] = 100, g.s.gpr[kRax] = 0x90;
    g.run({0xf3, 0xaa, 0x90, 0x90}, 0);  // rep stosb; the second iteration makes its prefix a NOP
    for (u64 at = step; at <= 3; at += step) g.engine.run(at);
    g.s = g.engine.get();
    EXPECT_EQ(g.s.gpr[kRcx], 98u);
    EXPECT_EQ(g.s.rip, Guest::kCode + 1);
  }
}

struct Counter final : PortDevice {
  u32 port_read(u16, unsigned) override { return ++reads; }
  void port_write(u16, unsigned, u32 value) override { written = written << 8 | value; }
  u32 reads = 0, written = 0;
};

TEST(String, PortsAreReadAndWrittenOncePerIteration) {
  Guest g;
  Counter device;
  g.ports.map(0x300, 0x300, device);
  g.s.gpr[kRdx] = 0x300, g.s.gpr[kRdi] = Guest::kData, g.s.gpr[kRcx] = 5;
  g.run({0xf3, 0x6c, 0x90}, 3);  // rep insb
  EXPECT_EQ(device.reads, 3u);
  EXPECT_EQ(g.s.gpr[kRcx], 2u);
  g.run({0xf3, 0x6c, 0x90}, 2);
  EXPECT_EQ(g.get<u64>(Guest::kData), 0x05'0403'0201u);
  EXPECT_EQ(g.s.rip, Guest::kCode + 2);
  g.s.gpr[kRsi] = Guest::kData + 1;
  g.run({0x6e});  // outsb
  EXPECT_EQ(device.written, 2u);
  g.s.gpr[kRcx] = 2;
  g.run({0xf3, 0x6e}, 2);
  EXPECT_EQ(device.written, 0x02'0304u);
}

TEST(String, InsAsksBeforeItReads) {
  Guest g;
  Counter device;
  g.ports.map(0x300, 0x300, device);
  g.s.gpr[kRdx] = 0x300, g.s.gpr[kRdi] = Guest::kAbsent;
  EXPECT_EQ(g.run({0x6c}).exception(), 14);
  EXPECT_EQ(device.reads, 0u);
}

}  // namespace
}  // namespace stasis::soft
