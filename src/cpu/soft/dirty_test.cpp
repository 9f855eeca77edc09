// Which pages are marked as written: every kind of write marks its page in each period, reads mark none, and nothing that
// changes is missed.
#include <random>
#include <set>

#include "cpu/soft/tiny_guest.hpp"

namespace stasis::soft {
namespace {

using Pages = std::set<u64>;

// All entries accessed and dirty already, so that walks write nothing, unless a test clears some.
void use_all_entries(TinyGuest& guest) {
  for (const u64 table : {0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000})
    for (u64 at = table; at < table + 0x1000; at += 8)
      if (guest.peek(at) & 1) guest.put(at, guest.peek(at) | 0x60);
}

Pages collect(Engine& engine, const GuestMemory& memory) {
  std::vector<u64> bits((memory.pages() + 63) / 64);
  EXPECT_TRUE(engine.collect_writes(bits));
  Pages pages;
  for (u64 page = 0; page < memory.pages(); ++page)
    if (bits[page / 64] >> page % 64 & 1) pages.insert(page);
  return pages;
}

class PortOfAs final : public PortDevice {
 public:
  u32 port_read(u16, unsigned) override { return 0x41; }
  void port_write(u16, unsigned, u32) override {}
};

// The snippet is a loop of up to some thousand instructions, iterations of REP among them; r8 to r15 hold 0x20000.
struct DirtyLoop {
  static constexpr u64 kPeriod = 5000;
  explicit DirtyLoop(Bytes code) : guest(code) {
    guest.ports.map(0x80, 0x80, port);
    for (unsigned i = 8; i < 16; ++i) guest.state.gpr[i] = 0x20000;
    use_all_entries(guest);
    const u64 skip = 0xcf48'0224'0483'48;  // add qword ptr [rsp], 2; iretq
    guest.put(TinyGuest::kHandlers + kUd * 16, skip);
  }
  // What each period of a warm loop marks: the same one every time.
  Pages pages() {
    guest.start();
    guest.run(kPeriod);
    EXPECT_TRUE(guest.engine.track_writes(true));
    guest.run(2 * kPeriod);
    const Pages first = collect(guest.engine, guest.memory);
    for (u64 end = 3 * kPeriod; end <= 6 * kPeriod; end += kPeriod) {
      EXPECT_EQ(guest.run(end), StopReason::count) << guest.engine.failure();
      EXPECT_EQ(collect(guest.engine, guest.memory), first);
    }
    EXPECT_EQ(collect(guest.engine, guest.memory), Pages{}) << "nothing ran";
    EXPECT_TRUE(guest.engine.consistent());
    return first;
  }
  PortOfAs port;
  TinyGuest guest;
};

#define DIRTY(name, wanted, text)                                       \
  SNIPPET(dirty_##name, "1:\n" text "\njmp 1b");                        \
  TEST(DirtyPages, name) { EXPECT_EQ(DirtyLoop(CODE_OF(dirty_##name)).pages(), (Pages wanted)); }

DIRTY(reads_mark_nothing, {}, "fninit\nmov rax, [r8]\nmovaps xmm0, [r8 + 0x1000]\ncmp rax, [r8 + 0x2000]\nfld tbyte ptr [r8]")
DIRTY(a_store, {0x20}, "mov [r8 + 0x10], rax\nmov rbx, [r8 + 0x1000]")
DIRTY(a_crossing_store, ({0x20, 0x21}), "mov [r8 + 0xffc], rax")
DIRTY(a_crossing_vector_store, ({0x20, 0x21}), "movups [r8 + 0xff8], xmm0")
DIRTY(read_modify_write, ({0x20, 0x21, 0x22}), "add qword ptr [r8], 1\nlock xadd [r8 + 0x1000], rax\nbts dword ptr [r8 + 0x2000], 5")
DIRTY(exchanges, ({0x20, 0x21}), "xchg [r8], rax\nxor eax, eax\nxor edx, edx\nmov ebx, 5\nlock cmpxchg16b [r8 + 0x1000]")
DIRTY(push_and_call, {0xc}, "push rax\npop rcx\ncall 2f\n2: add rsp, 8\nmov rax, [rsp]")
DIRTY(rep_movs, ({0x22, 0x23}), "mov rsi, r8\nlea rdi, [r8 + 0x2010]\nmov ecx, 0x300\nrep movsq")
DIRTY(rep_movs_downwards, ({0x22, 0x23}), "std\nlea rsi, [r8 + 0x1800]\nlea rdi, [r8 + 0x3100]\nmov ecx, 0x140\nrep movsb\ncld")
DIRTY(rep_stos, ({0x20, 0x21, 0x22}), "lea rdi, [r8 + 0xff0]\nmov ecx, 0x1100\nrep stosb")
DIRTY(single_string_operations, ({0x21, 0x22}), "mov rsi, r8\nlea rdi, [r8 + 0x1000]\nmovsb\nlea rdi, [r8 + 0x2000]\nstosd")
DIRTY(port_input, {0x21}, "lea rdi, [r8 + 0x1000]\nmov ecx, 3\nmov edx, 0x80\nrep insb")
DIRTY(vector_stores, ({0x20, 0x21, 0x22, 0x23}),
      "movaps [r8], xmm0\nmovntdq [r8 + 0x1000], xmm1\nlea rdi, [r8 + 0x2000]\npcmpeqd xmm2, xmm2\nmaskmovdqu xmm0, xmm2\nmovq [r8 + 0x3000], mm0\nemms")
DIRTY(x87_stores, ({0x20, 0x21, 0x22}), "fninit\nfld1\nfstp tbyte ptr [r8]\nfld1\nfistp dword ptr [r8 + 0x1000]\nfnstcw [r8 + 0x2000]")
DIRTY(fpu_images, ({0x20, 0x21, 0x22}), "fxsave [r8 + 0xf00]\nfnsave [r8 + 0x2000]")
DIRTY(descriptor_stores, ({0x20, 0x21}), "sgdt [r8]\nsmsw [r8 + 0x1000]")
DIRTY(exception_frames, {0xc}, "ud2")
DIRTY(own_code, {0x10}, "inc byte ptr [rip + 2f + 6]\njmp 3f\n2: .balign 8\n.quad 0\n3: nop")
DIRTY(decoded_code, {0x10}, "lea rbx, [rip + 1b]\nmov al, [rbx]\nmov [rbx], al")
DIRTY(page_tables, {0x4}, "mov rax, [0x4100]\nmov [0x4100], rax")

// The walker sets A and D: a read of a page writes to its table, a store to both.
SNIPPET(dirty_walks, "1: mov rax, [r8]\nhlt");
SNIPPET(dirty_walk_of_a_store, "1: mov [r8], rax\nhlt");
TEST(DirtyPages, accessed_and_dirty_bits) {
  DirtyLoop read(CODE_OF(dirty_walks)), store(CODE_OF(dirty_walk_of_a_store));
  for (DirtyLoop* loop : {&read, &store}) {
    loop->guest.map(0x20000, 0x20007);
    ASSERT_TRUE(loop->guest.engine.track_writes(true));
    loop->guest.finish();
  }
  EXPECT_EQ(collect(read.guest.engine, read.guest.memory), (Pages{4}));
  EXPECT_EQ(collect(store.guest.engine, store.guest.memory), (Pages{4, 0x20}));
}

// Marks LTR's busy bit, and the frame on another stack that an exception at CPL 3 gets.
SNIPPET(dirty_ltr, "mov eax, 0x30\nltr ax\nhlt");
SNIPPET(dirty_user, "ud2");
TEST(DirtyPages, system_structures) {
  DirtyLoop task(CODE_OF(dirty_ltr)), user(CODE_OF(dirty_user));
  user.guest.user();
  user.guest.put(TinyGuest::kHandlers + kUd * 16, 0xf4);
  for (DirtyLoop* loop : {&task, &user}) {
    ASSERT_TRUE(loop->guest.engine.track_writes(true));
    loop->guest.finish();
  }
  EXPECT_EQ(collect(task.guest.engine, task.guest.memory), (Pages{7}));
  EXPECT_EQ(collect(user.guest.engine, user.guest.memory), (Pages{0xe}));
}

SNIPPET(dirty_msr, "mov ecx, 0x4b564d01\nmov eax, 0x30ff1\nxor edx, edx\nwrmsr\nmov ecx, 0x4b564d00\nmov eax, 0x32000\nwrmsr\nhlt");
TEST(DirtyPages, pvclock) {
  TinyGuest tiny(CODE_OF(dirty_msr));
  use_all_entries(tiny);
  PvclockState pvclock;
  SoftEngine engine{CpuBoard{tiny.memory, tiny.ports, tiny.mmio, tiny.clock, tiny.apic, tiny.contract, &pvclock, 1'700'000'000}};
  engine.set(tiny.state);
  ASSERT_TRUE(engine.track_writes(true));
  ASSERT_EQ(engine.run(100), StopReason::idle) << engine.failure();
  EXPECT_EQ(collect(engine, tiny.memory), (Pages{0x30, 0x31, 0x32}));
}

TEST(DirtyPages, writes_from_outside) {
  TinyGuest tiny({});
  const u8 bytes[8] = {1};
  tiny.memory.write(0x40ffc, bytes);
  ASSERT_TRUE(tiny.engine.track_writes(true));
  EXPECT_EQ(collect(tiny.engine, tiny.memory), Pages{}) << "before it was on";
  tiny.memory.write(0x40ffc, bytes);
  tiny.memory.mark_written(0x50000, 0x1001);
  EXPECT_EQ(collect(tiny.engine, tiny.memory), (Pages{0x40, 0x41, 0x50, 0x51}));
  ASSERT_TRUE(tiny.engine.track_writes(false));
  tiny.memory.write(0x40000, bytes);
  EXPECT_EQ(collect(tiny.engine, tiny.memory), Pages{});
}

}  // namespace
}  // namespace stasis::soft
