// Page faults and their error codes, accessed and dirty bits, and a TLB that never disagrees with the tables.
#include "cpu/soft/tiny_guest.hpp"

SNIPPET(load_rdi, "mov rax, [rdi]; hlt");
SNIPPET(store_rdi, "mov [rdi], rax; hlt");
SNIPPET(add_rdi, "add [rdi], rax; hlt");
SNIPPET(jump_rdi, "jmp rdi");
SNIPPET(push_far, "mov rsp, rdi; push rax; hlt");
SNIPPET(load_with_ac, "stac; mov rax, [rdi]; clac; mov rbx, [rdi]; hlt");
SNIPPET(remap, R"(
   mov rax, [rdi]
   mov qword ptr [rsi], rdx
   mov rbx, [rdi]
   mov qword ptr [rdi], 0x77
   hlt)");
SNIPPET(unmap_self, R"(
   mov qword ptr [rsi], 0
   inc rbx
   inc rbx
   hlt)");

namespace stasis::soft {
namespace {

constexpr u64 kAt = 0x100008, kPage = 0x100000, kNx = 1ull << 63;

struct Fault {
  int vector;
  u64 error, cr2, rip;
  bool operator==(const Fault&) const = default;
};
Fault fault_of(TinyGuest& guest, u64 rdi = kAt) {
  guest.state.gpr[kRdi] = rdi;
  const VcpuState s = guest.finish();
  const int vector = TinyGuest::vector_of(s);
  if (vector < 0) return {-1, 0, 0, s.rip};
  return {vector, guest.peek(s.gpr[kRsp]), s.cr2, guest.peek(s.gpr[kRsp] + 8)};
}
Fault page_fault(u64 error, u64 rip = TinyGuest::kCode) { return {14, error, kAt, rip}; }
constexpr int kNone = -1;

TEST(Paging, NotPresent) {
  TinyGuest read(CODE_OF(load_rdi)), write(CODE_OF(store_rdi)), change(CODE_OF(add_rdi)), fetch(CODE_OF(jump_rdi));
  EXPECT_EQ(fault_of(read), page_fault(0));
  EXPECT_EQ(fault_of(write), page_fault(2));
  EXPECT_EQ(fault_of(change), page_fault(2));
  EXPECT_EQ(fault_of(fetch), page_fault(0x10, kAt));
}

TEST(Paging, ReadOnlyPages) {
  TinyGuest write(CODE_OF(store_rdi));
  write.map(kAt, 0x20001);
  EXPECT_EQ(fault_of(write), page_fault(3));
  TinyGuest unprotected(CODE_OF(store_rdi));
  unprotected.map(kAt, 0x20001);
  unprotected.state.cr0 &= ~kCr0Wp;
  EXPECT_EQ(fault_of(unprotected).vector, kNone);
  EXPECT_EQ(unprotected.entry(kAt), 0x20061u);
}

TEST(Paging, UserAndSupervisor) {
  TinyGuest user(CODE_OF(load_rdi));
  user.user();
  user.map(kAt, 0x20003);
  EXPECT_EQ(fault_of(user), page_fault(5));
  TinyGuest smep(CODE_OF(jump_rdi));
  smep.map(kAt, 0x20007);
  smep.state.cr4 |= kCr4Smep;
  smep.map(TinyGuest::kCode, TinyGuest::kCode | 3);
  for (u64 page = 0; page < 0x100; ++page) smep.map(page << 12, page << 12 | 3);
  EXPECT_EQ(fault_of(smep), page_fault(0x11, kAt));
}

TEST(Paging, SmapLetsAcThrough) {
  TinyGuest guest(CODE_OF(load_with_ac));
  for (u64 page = 0; page < 0x100; ++page) guest.map(page << 12, page << 12 | 3);
  guest.map(kAt, 0x20007);
  guest.put(0x20008, 0x1234);
  guest.state.cr4 |= kCr4Smap;
  EXPECT_EQ(fault_of(guest), page_fault(1, TinyGuest::kCode + 9)) << "the read after CLAC";
  EXPECT_EQ(guest.engine.get().gpr[kRax], 0x1234u);
}

TEST(Paging, NoExecute) {
  TinyGuest fetch(CODE_OF(jump_rdi));
  fetch.map(kAt, 0x20003 | kNx);
  EXPECT_EQ(fault_of(fetch), page_fault(0x11, kAt));
  TinyGuest off(CODE_OF(load_rdi));
  off.map(kAt, 0x20003 | kNx);
  off.state.efer &= ~kEferNxe;
  EXPECT_EQ(fault_of(off), page_fault(9)) << "a reserved bit then";
}

TEST(Paging, ReservedBits) {
  TinyGuest high(CODE_OF(load_rdi));
  high.map(kAt, 0x20003 | 1ull << 39);
  EXPECT_EQ(fault_of(high), page_fault(9)) << "the contract shows 39 physical address bits";
  TinyGuest large(CODE_OF(load_rdi));
  large.put(0x3008, 0x2083 | 0x2000);  // a 2 MiB page at 2 MiB with bit 13 set
  EXPECT_EQ(fault_of(large, 0x200000).error, 9u);
}

TEST(Paging, AccessedAndDirty) {
  TinyGuest read(CODE_OF(load_rdi)), write(CODE_OF(store_rdi));
  read.map(kAt, 0x20003);
  write.map(kAt, 0x20003);
  EXPECT_EQ(fault_of(read).vector, kNone);
  EXPECT_EQ(fault_of(write).vector, kNone);
  EXPECT_EQ(read.entry(kAt), 0x20023u);
  EXPECT_EQ(write.entry(kAt), 0x20063u);
  EXPECT_EQ(write.peek(0x1000), 0x2027u);
  EXPECT_EQ(write.peek(0x3000), 0x4027u);
  TinyGuest refused(CODE_OF(store_rdi));
  refused.map(kAt, 0x20001);
  fault_of(refused);
  EXPECT_EQ(refused.entry(kAt), 0x20001u);
}

TEST(Paging, LargePages) {
  TinyGuest guest(CODE_OF(store_rdi));
  guest.put(0x3008, 0x83);       // 2 MiB at 2 MiB: physical 0
  guest.put(0x2008, 0x83);       // 1 GiB at 1 GiB: physical 0
  guest.state.gpr[kRax] = 0x5a5a;
  EXPECT_EQ(fault_of(guest, 0x230000).vector, kNone);
  EXPECT_EQ(guest.peek(0x30000), 0x5a5au);
  EXPECT_EQ(guest.peek(0x3008), 0xe3u);
  TinyGuest giant(CODE_OF(store_rdi));
  giant.put(0x2008, 0x83);
  giant.state.gpr[kRax] = 0x5a5a;
  EXPECT_EQ(fault_of(giant, 0x4003'0000).vector, kNone);
  EXPECT_EQ(giant.peek(0x30000), 0x5a5au);
}

TEST(Paging, NonCanonicalAddresses) {
  TinyGuest data(CODE_OF(load_rdi)), stack(CODE_OF(push_far)), jump(CODE_OF(jump_rdi));
  EXPECT_EQ(fault_of(data, 1ull << 47), (Fault{13, 0, 0, TinyGuest::kCode}));
  EXPECT_EQ(fault_of(jump, 1ull << 47), (Fault{13, 0, 0, TinyGuest::kCode})) << "the branch faults, not its target";
  stack.put(0xa004, 0xf000);
  stack.put(0x9000 + 12 * 16, stack.peek(0x9000 + 12 * 16) | 1ull << 32);  // IST1: RSP is no good
  EXPECT_EQ(fault_of(stack, 1ull << 62), (Fault{12, 0, 0, TinyGuest::kCode + 3}));
}

TEST(Paging, ACrossingStoreChangesNothingWhenItsSecondPageFails) {
  TinyGuest guest(CODE_OF(store_rdi));
  guest.map(kPage, 0x20003);
  guest.state.gpr[kRax] = ~0ull;
  EXPECT_EQ(fault_of(guest, kPage + 0xffc), (Fault{14, 2, kPage + 0x1000, TinyGuest::kCode}));
  EXPECT_EQ(guest.peek(0x20ff8), 0u);
}

TEST(Paging, TheTlbFollowsTheTablesWithoutInvlpg) {
  TinyGuest guest(CODE_OF(remap));
  guest.map(kAt, 0x20003);
  guest.put(0x20008, 0x11);
  guest.put(0x21008, 0x22);
  guest.state.gpr[kRsi] = TinyGuest::kPageTable + (kAt >> 12) * 8;
  guest.state.gpr[kRdx] = 0x21003;
  EXPECT_EQ(fault_of(guest).vector, kNone);
  EXPECT_EQ(guest.engine.get().gpr[kRax], 0x11u);
  EXPECT_EQ(guest.engine.get().gpr[kRbx], 0x22u);
  EXPECT_EQ(guest.peek(0x21008), 0x77u);
  EXPECT_EQ(guest.entry(kAt), 0x21063u);
}

TEST(Paging, CodeThatUnmapsItselfFaultsAtTheNextInstruction) {
  TinyGuest guest(CODE_OF(unmap_self));
  guest.state.gpr[kRsi] = TinyGuest::kPageTable + (TinyGuest::kCode >> 12) * 8;
  const Fault fault = fault_of(guest);
  EXPECT_EQ(fault, (Fault{14, 0x10, TinyGuest::kCode + 7, TinyGuest::kCode + 7}));
  EXPECT_EQ(guest.engine.get().gpr[kRbx], 0u);
}

TEST(Paging, TablesWrittenByADeviceAreSeen) {
  TinyGuest guest(CODE_OF(remap));
  guest.map(kAt, 0x20003);
  guest.put(0x20008, 0x11);
  guest.put(0x21008, 0x22);
  guest.state.gpr[kRdi] = kAt;
  guest.state.gpr[kRsi] = 0x30000;
  guest.start();
  guest.engine.run(2);
  guest.map(kAt, 0x21003);
  guest.engine.memory_written(TinyGuest::kPageTable + (kAt >> 12) * 8, 8);
  guest.run();
  EXPECT_EQ(guest.engine.get().gpr[kRbx], 0x22u);
}

TEST(Paging, A20ForcesTheBitToZero) {
  TinyGuest guest(CODE_OF(load_rdi));
  guest.map(kAt, 0x120003);
  guest.put(0x120008, 1);
  guest.put(0x20008, 2);
  guest.engine.set_a20(false);
  fault_of(guest);
  EXPECT_EQ(guest.engine.get().gpr[kRax], 2u);
}

}  // namespace
}  // namespace stasis::soft
