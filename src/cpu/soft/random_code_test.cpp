// Random bytes as code, in every mode and privilege: nothing crashes, the TLB stays true to the tables, stopping,
// saving and restoring at random counts changes nothing, and writes are followed without a trace and without a gap.
#include <random>

#include "cpu/soft/tiny_guest.hpp"

namespace stasis::soft {
namespace {

using Random = std::mt19937_64;

u64 pick(Random& random, std::initializer_list<u64> choices) { return choices.begin()[random() % choices.size()]; }

// Bytes with a taste for what decodes: many prefixes, 0F opcodes and the system corner.
std::vector<u8> random_code(Random& random, std::size_t size) {
  std::vector<u8> code(size);
  for (u8& byte : code) byte = static_cast<u8>(random());
  for (std::size_t at = 0; at + 8 < size; at += 3 + random() % 12) {
    static constexpr u8 kLikely[] = {0x0f, 0x48, 0x66, 0xf3, 0xf0, 0x8b, 0x89, 0x01, 0xff, 0xe8, 0xc3, 0xa4, 0xaa, 0x8e, 0xcf, 0xcd};
    code[at] = kLikely[random() % std::size(kLikely)];
    if (code[at] == 0x0f && random() % 2) code[at + 1] = static_cast<u8>(pick(random, {0x00, 0x01, 0x05, 0x07, 0x20, 0x22, 0x30, 0x32, 0xae, 0xc7, 0xa2}));
  }
  return code;
}

void set_up(TinyGuest& guest, u64 seed) {
  Random random(seed);
  const std::vector<u8> code = random_code(random, 0x3000);
  std::memcpy(guest.memory.host() + TinyGuest::kCode, code.data(), code.size());
  for (u64& reg : guest.state.gpr)
    reg = pick(random, {0, 1, random() % 0x100000, 0x4000 + random() % 0x1000, 0x10000 + random() % 0x3000, random(), 0xfee00000 + random() % 0x400});
  if (random() % 8) guest.state.gpr[kRsp] = 0x18000 + random() % 64;
  guest.state.rip = TinyGuest::kCode + random() % 0x2000;
  guest.state.rflags = 2 | (random() & 0x4'7ed5);
  for (unsigned i = 0; i < 16; ++i) guest.map(0x100000 + i * 0x1000, (random() % 0x200 << 12) | (random() & 0x67));
  for (auto& xmm : guest.state.fpu.xmm)
    for (u8& byte : xmm) byte = static_cast<u8>(random());
  if (random() % 2) guest.state.cr4 |= pick(random, {kCr4Smap, kCr4Umip, kCr4Smep | kCr4Umip, kCr4Tsd});
  for (u64 v = 0; v < 32; ++v) guest.gate(static_cast<u8>(v), TinyGuest::kCode + random() % 0x2800, 3);
  guest.state.star = 0x0018'0008ull << 32;
  guest.state.lstar = TinyGuest::kCode + random() % 0x2000;
  guest.state.efer |= kEferSce;
  switch (random() % 4) {
    case 0: guest.user(); break;
    case 1:  // 32-bit code under long mode
      guest.user();
      guest.state.cs.attributes = 0xcfb;
      break;
    case 2:  // 32-bit, no paging
      guest.state.cr0 = 0x11, guest.state.cr4 &= ~kCr4Pae, guest.state.efer = 0;
      guest.state.cs = {.selector = 0x18, .attributes = 0xc9b, .limit = ~0u, .base = 0};
      for (u64& reg : guest.state.gpr) reg = static_cast<u32>(reg);
      break;
    default: break;
  }
}

TEST(RandomCode, StopsAnywhereWithoutATrace) {
  for (u64 seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(seed);
    TinyGuest whole({}), parts({});
    set_up(whole, seed);
    set_up(parts, seed);
    whole.start();
    parts.start();
    constexpr u64 kEnd = 400;
    StopReason reason = StopReason::attention;
    for (unsigned tries = 0; tries < 3 && reason == StopReason::attention; ++tries) reason = whole.run(kEnd);
    ASSERT_TRUE(whole.engine.consistent());
    Random random(seed);
    for (u64 at = 0; at < whole.engine.retired(); at += 1 + random() % 9) {
      parts.run(at);
      const VcpuState saved = parts.engine.get();
      parts.engine.set(saved);
      ASSERT_EQ(parts.engine.get(), saved);
    }
    for (unsigned tries = 0; tries < 3; ++tries) parts.run(whole.engine.retired());
    if (reason != StopReason::count) continue;  // ended in a halt, a shutdown or an endless fault: no common count
    ASSERT_EQ(parts.engine.get(), whole.engine.get());
    ASSERT_EQ(parts.digest(), whole.digest());
    ASSERT_EQ(parts.apic.state(), whole.apic.state());
  }
}

TEST(RandomCode, EveryChangedPageIsMarked) {
  u64 marked = 0, changed = 0;
  for (u64 seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(seed);
    TinyGuest tracked({}), plain({});
    set_up(tracked, seed);
    set_up(plain, seed);
    tracked.start();
    plain.start();
    ASSERT_TRUE(tracked.engine.track_writes(true));
    Random random(seed);
    std::vector<u8> before(tracked.memory.size());
    for (u64 end = 0; end < 400;) {
      end += 1 + random() % 60;
      std::memcpy(before.data(), tracked.memory.host(), before.size());
      ASSERT_EQ(tracked.run(end), plain.run(end));
      ASSERT_EQ(tracked.engine.get(), plain.engine.get());
      std::vector<u64> bits((tracked.memory.pages() + 63) / 64);
      ASSERT_TRUE(tracked.engine.collect_writes(bits));
      for (u64 page = 0; page < tracked.memory.pages(); ++page) {
        const bool mark = bits[page / 64] >> page % 64 & 1;
        const bool differs = std::memcmp(&before[page * kPageSize], tracked.memory.host() + page * kPageSize, kPageSize) != 0;
        ASSERT_LE(differs, mark) << "page " << page << " changed before " << end;
        marked += mark, changed += differs;
      }
    }
    ASSERT_EQ(tracked.digest(), plain.digest());
    ASSERT_EQ(tracked.apic.state(), plain.apic.state());
    ASSERT_TRUE(tracked.engine.consistent());
  }
  EXPECT_GT(changed, 1000u);
  EXPECT_LT(marked, 2 * changed) << "pages that were only read, or written with what they held";
  RecordProperty("marked", static_cast<int>(marked));
  RecordProperty("changed", static_cast<int>(changed));
}

}  // namespace
}  // namespace stasis::soft
