// Which pages a guest under KVM wrote: KVM's log of each slot by RAM offset, what others wrote, and a log that cannot be read.
#include <gtest/gtest.h>

#include <set>

#include "cpu/kvm/engine.hpp"
#include "cpu/kvm/fake_kernel.hpp"

namespace stasis::kvm {
namespace {

using Pages = std::set<u64>;

struct DirtyRig {
  DirtyRig(std::shared_ptr<Kernel> kernel, u64 size, CpuContract shown) : memory(*GuestMemory::create(size)), contract(std::move(shown)) {
    auto system = System::open(std::move(kernel));
    EXPECT_TRUE(system) << system.error().text();
    auto made = KvmEngine::create(std::move(*system), {.memory = memory, .ports = ports, .mmio = mmio, .clock = clock, .pvclock = pvclock,
                                                       .contract = contract, .stop_limit_ns = 20 * kSecond});
    EXPECT_TRUE(made) << made.error().text();
    engine = std::move(*made);
  }
  std::vector<u64> none() const { return std::vector<u64>((memory.pages() + 63) / 64); }
  Pages pages_of(const std::vector<u64>& bits) const {
    Pages pages;
    for (u64 page = 0; page < memory.pages(); ++page)
      if (bits[page / 64] >> page % 64 & 1) pages.insert(page);
    return pages;
  }
  Pages collect() {
    std::vector<u64> bits = none();
    const auto collected = engine->collect_writes(bits);
    EXPECT_TRUE(collected) << collected.error().text();
    return pages_of(bits);
  }
  GuestMemory memory;
  PortBus ports;
  MmioBus mmio;
  Clock clock;
  PvclockState pvclock;
  CpuContract contract;
  std::unique_ptr<KvmEngine> engine;
};

constexpr u64 kHigh = GuestMemory::kHoleStart / kPageSize;  // the first page of the slot above the hole

struct FakeRig {
  std::shared_ptr<FakeKernel> kernel = std::make_shared<FakeKernel>();
  DirtyRig rig{kernel, GuestMemory::kHoleStart + kGiB + 5 * kPageSize, [] {
                 CpuContract contract = default_cpu_contract(1);
                 contract.tsc_hz = 2'000'000'000;
                 return contract;
               }()};
  void write_low_and_high(u8 value) {
    kernel->guest_writes(0x12345, value);
    kernel->guest_writes(GuestMemory::kHoleStart - 1, value);
    kernel->guest_writes(GuestMemory::kHoleEnd, value);
    kernel->guest_writes(GuestMemory::kHoleEnd + kGiB + 5 * kPageSize - 1, value);
  }
  const Pages low_and_high{0x12, kHigh - 1, kHigh, kHigh + kGiB / kPageSize + 4};
};

TEST(KvmDirtyPages, each_slot_by_ram_offset) {
  FakeRig fake;
  fake.write_low_and_high(1);  // nobody asked yet
  ASSERT_TRUE(fake.rig.engine->track_writes(true));
  EXPECT_EQ(fake.rig.collect(), Pages{});
  for (int period = 0; period < 3; ++period) {
    fake.write_low_and_high(2);
    EXPECT_EQ(fake.rig.collect(), fake.low_and_high);
    EXPECT_EQ(fake.rig.collect(), Pages{});
  }
}

TEST(KvmDirtyPages, what_others_write_is_with_them) {
  FakeRig fake;
  ASSERT_TRUE(fake.rig.engine->track_writes(true));
  const u8 bytes[8] = {1};
  fake.rig.memory.write(GuestMemory::kHoleEnd + 0xffc, bytes);
  fake.kernel->guest_writes(0x5000, 1);
  EXPECT_EQ(fake.rig.collect(), (Pages{5, kHigh, kHigh + 1}));
}

TEST(KvmDirtyPages, a_collection_adds) {
  FakeRig fake;
  ASSERT_TRUE(fake.rig.engine->track_writes(true));
  fake.kernel->guest_writes(0x5000, 1);
  std::vector<u64> bits = fake.rig.none();
  bits[1] = 1;
  ASSERT_TRUE(fake.rig.engine->collect_writes(bits));
  EXPECT_EQ(fake.rig.pages_of(bits), (Pages{5, 64}));
}

// The first slot's log is read, and so forgotten by KVM, when the second one's fails.
TEST(KvmDirtyPages, a_log_that_cannot_be_read_loses_nothing) {
  for (const u32 bad_slot : {0u, 1u}) {
    FakeRig fake;
    ASSERT_TRUE(fake.rig.engine->track_writes(true));
    fake.write_low_and_high(1);
    fake.kernel->refuses = [&](unsigned long request, const void* argument) {
      return request == KVM_GET_DIRTY_LOG && static_cast<const kvm_dirty_log*>(argument)->slot == bad_slot;
    };
    std::vector<u64> bits = fake.rig.none();
    const auto failed = fake.rig.engine->collect_writes(bits);
    ASSERT_FALSE(failed);
    EXPECT_NE(failed.error().text().find("KVM_GET_DIRTY_LOG"), std::string::npos) << failed.error().text();
    EXPECT_EQ(fake.rig.pages_of(bits), Pages{});
    fake.kernel->guest_writes(0x7000, 1);
    fake.kernel->refuses = nullptr;
    Pages wanted = fake.low_and_high;
    wanted.insert(7);
    EXPECT_EQ(fake.rig.collect(), wanted);
  }
}

TEST(KvmDirtyPages, a_log_that_cannot_be_switched_on_is_an_error) {
  FakeRig fake;
  fake.kernel->refuses = [&](unsigned long request, const void* argument) {
    return request == KVM_SET_USER_MEMORY_REGION && static_cast<const kvm_userspace_memory_region*>(argument)->slot == 1;
  };
  ASSERT_FALSE(fake.rig.engine->track_writes(true));
  fake.kernel->refuses = nullptr;
  ASSERT_TRUE(fake.rig.engine->track_writes(true));
  fake.write_low_and_high(1);
  EXPECT_EQ(fake.rig.collect(), fake.low_and_high);
}

// ---- a real KVM -----------------------------------------------------------------------------------------------------

// Adds to a byte of each page from 0x200000 on that is not a multiple of 3, reads the others, tells port 0x80, again.
asm(R"(.pushsection .rodata
.intel_syntax noprefix
kvm_dirty_begin:
  mov ebx, 0x200000
  mov ecx, 1
1: mov eax, ecx
  xor edx, edx
  mov esi, 3
  div esi
  test edx, edx
  jz 2f
  inc byte ptr [rbx + 0x10]
2: mov al, [rbx]
  add ebx, 0x1000
  inc ecx
  cmp ecx, 100
  jne 1b
  mov rdi, 0x300ffe
  mov ecx, 4
  rep stosb
  inc dword ptr [0x310ffe]
  out 0x80, al
  jmp kvm_dirty_begin
kvm_dirty_end:
.att_syntax prefix
.popsection)");
extern "C" const u8 kvm_dirty_begin[], kvm_dirty_end[];

struct Bell final : PortDevice {
  explicit Bell(DirtyRig& r) : rig(r) {}
  u32 port_read(u16, unsigned) override { return 0; }
  void port_write(u16, unsigned, u32) override { rig.engine->attention(); }
  DirtyRig& rig;
};

// Virtual = physical for 4 MiB, by two large pages.
void load(DirtyRig& rig) {
  const auto put = [&](u64 address, u64 value) { rig.memory.write(address, {reinterpret_cast<const u8*>(&value), 8}); };
  put(0x1000, 0x2003);
  put(0x2000, 0x3003);
  put(0x3000, 0x83);
  put(0x3008, 0x20'0083);
  rig.memory.write(0x10000, {kvm_dirty_begin, static_cast<std::size_t>(kvm_dirty_end - kvm_dirty_begin)});
  VcpuState state;
  state.gpr = {};
  state.rip = 0x10000, state.rflags = 2, state.cr0 = 0x8001'0033, state.cr3 = 0x1000, state.cr4 = 0x620, state.efer = 0xd00;
  state.cs = {.selector = 8, .attributes = 0xa9b, .limit = ~0u, .base = 0};
  state.ss = state.ds = state.es = {.selector = 0x10, .attributes = 0xc93, .limit = ~0u, .base = 0};
  state.tr = {.selector = 0x18, .attributes = 0x8b, .limit = 0x67, .base = 0};
  rig.engine->set(state);
}

TEST(KvmHost, pages_that_a_guest_writes_are_marked) {
  const auto kernel = host_kernel();
  if (const Choice choice = choose(*kernel); !choice.kvm) GTEST_SKIP() << choice.why;
  const auto system = System::open(kernel);
  ASSERT_TRUE(system) << system.error().text();
  auto contract = make_contract("x86-64-v2", {.cpus = 1, .memory_bytes = 4 * kMiB}, system->offer());
  ASSERT_TRUE(contract) << contract.error().text();
  DirtyRig rig(kernel, 4 * kMiB, std::move(*contract));
  Bell bell(rig);
  rig.ports.map(0x80, 0x80, bell);
  load(rig);
  Pages wanted{0x300, 0x301, 0x310, 0x311};
  for (u64 n = 1; n < 100; ++n)
    if (n % 3) wanted.insert(0x200 + n - 1);
  for (int period = 0; period < 4; ++period) {
    const std::vector<u8> before(rig.memory.host(), rig.memory.host() + rig.memory.size());
    ASSERT_EQ(rig.engine->run(rig.engine->retired() + 60 * kSecond), StopReason::attention) << rig.engine->failure();
    ASSERT_TRUE(rig.engine->hold());
    if (period == 0) {
      ASSERT_TRUE(rig.engine->track_writes(true));
      continue;
    }
    Pages marked = rig.collect();
    for (u64 page = 0; page < rig.memory.pages(); ++page) {
      const bool differs = std::memcmp(&before[page * kPageSize], rig.memory.host() + page * kPageSize, kPageSize) != 0;
      EXPECT_LE(differs, marked.contains(page)) << page;
    }
    for (const u64 table : {1, 2, 3}) marked.erase(table);  // accessed and dirty bits: the processor's affair
    EXPECT_EQ(marked, wanted);
  }
}

}  // namespace
}  // namespace stasis::kvm
