// The guest's page tables, descriptors and kernel.
#include "guest.hpp"

#include <xbyak/xbyak.h>

#include <cstring>

#include "base/error.hpp"

namespace stasis::differential {
namespace {

constexpr u64 kPresent = 1, kWritable = 2, kUserPage = 4, kUsed = 0x60, kLarge = 0x80;
constexpr u16 kKernelCode = 0x10, kKernelData = 0x18, kTaskSelector = 0x40;
constexpr u32 kWithError = 1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17;

// Entry points of the vectors, then the code that takes an outcome and starts the next case.
class Kernel : public Xbyak::CodeGenerator {
 public:
  Kernel(u8* where, u64 linear, u64 control) : CodeGenerator(4096, where), linear_(linear) {
    for (unsigned vector = 0; vector < 32; ++vector) {
      entries[vector] = here();
      if (!(kWithError >> vector & 1)) push(0);
      push(static_cast<int>(vector));
      jmp(common_, T_NEAR);
    }
    L(common_);
    push(rax);
    push(rbx);
    mov(rbx, control);
    mov(rbx, ptr[rbx + 0]);
    take();
    mov(rax, control);
    add(qword[rax], static_cast<u32>(sizeof(Outcome)));
    add(qword[rax + 8], static_cast<u32>(sizeof(Start)));
    dec(qword[rax + 16]);
    jz(done_, T_NEAR);
    next = here();
    mov(rbx, control);
    mov(rbx, ptr[rbx + 8]);
    load();
    static constexpr u8 kReturn[] = {0x48, 0xcf};  // iretq
    db(kReturn, sizeof(kReturn));
    L(done_);
    hlt();
    jmp(done_);
  }
  u64 entries[32] = {};
  u64 next = 0;

 private:
  u64 here() const { return linear_ + getSize(); }
  Xbyak::Address outcome(u64 offset) { return qword[rbx + static_cast<u32>(offset)]; }
  void take() {
    static constexpr unsigned kPopped[] = {3, 0};  // RBX, RAX
    for (const unsigned i : kPopped) pop(outcome(8 * i));
    for (const unsigned i : {1u, 2u, 5u, 6u, 7u, 8u, 9u, 10u, 11u, 12u, 13u, 14u, 15u}) mov(outcome(8 * i), Xbyak::Reg64(static_cast<int>(i)));
    pop(outcome(offsetof(Outcome, vector)));
    pop(outcome(offsetof(Outcome, error)));
    pop(outcome(offsetof(Outcome, rip)));
    pop(rax);
    pop(outcome(offsetof(Outcome, rflags)));
    pop(outcome(8 * 4));
    pop(rax);
    static constexpr u8 kReadCr2[] = {0x0f, 0x20, 0xd0};  // mov rax, cr2
    db(kReadCr2, sizeof(kReadCr2));
    mov(outcome(offsetof(Outcome, cr2)), rax);
    static constexpr u8 kSave[] = {0x48, 0x0f, 0xae, 0x83};  // fxsave64 [rbx + disp32]
    db(kSave, sizeof(kSave));
    dd(offsetof(Outcome, fx));
  }
  void load() {
    static constexpr u8 kRestore[] = {0x48, 0x0f, 0xae, 0x8b};
    db(kRestore, sizeof(kRestore));
    dd(offsetof(Start, fx));
    push(static_cast<u32>(kStackSelector));
    push(qword[rbx + 8 * 4]);
    push(qword[rbx + offsetof(Start, rflags)]);
    push(qword[rbx + offsetof(Start, cs)]);
    push(qword[rbx + offsetof(Start, rip)]);
    for (const unsigned i : {0u, 1u, 2u, 5u, 6u, 7u, 8u, 9u, 10u, 11u, 12u, 13u, 14u, 15u, 3u}) mov(Xbyak::Reg64(static_cast<int>(i)), qword[rbx + 8 * i]);
  }
  u64 linear_;
  Xbyak::Label common_, done_;
};

}  // namespace

Guest::Guest() : contract_(default_cpu_contract(1)) {
  auto ram = GuestMemory::create(kSize);
  STASIS_ASSERT(ram.has_value());
  ram_ = std::make_unique<GuestMemory>(std::move(*ram));
  apic_ = std::make_unique<LocalApic>(clock_, 0, contract_.tsc_hz);
  build_tables();
  build_kernel();
  engine_ = make_soft_engine(CpuBoard{*ram_, ports_, mmio_, clock_, *apic_, contract_});
}

void Guest::put(u64 physical, u64 value) { std::memcpy(at(physical), &value, 8); }

void Guest::map(u64 linear, u64 physical, u64 size, u64 bits) {
  for (u64 done = 0; done < size; done += kPageSize) {
    u64 table = kTables;
    for (unsigned level = 3; level > 0; --level) {
      u64 entry;
      const u64 slot = table + ((linear + done) >> (12 + 9 * level) & 511) * 8;
      std::memcpy(&entry, at(slot), 8);
      if (!(entry & kPresent)) {
        entry = free_table_ | kPresent | kWritable | kUserPage | kUsed;
        free_table_ += kPageSize;
        put(slot, entry);
      }
      table = entry & ~0xfffull;
    }
    put(table + ((linear + done) >> 12 & 511) * 8, (physical + done) | kPresent | kUsed | bits);
  }
}

void Guest::build_tables() {
  free_table_ = kTables + kPageSize;
  map(kCode, kMemory + kCodeAt, kCodeSize, kUserPage);
  map(kData, kMemory + kDataAt, kDataSize, kUserPage | kWritable);
  map(kEdge, kMemory + kEdgeAt, kPageSize, kUserPage | kWritable);
  map(kReadOnly, kMemory + kReadOnlyAt, kPageSize, kUserPage);
  // The kernel: 2 MiB pages.
  const u64 pdpt = free_table_, pd = free_table_ + kPageSize;
  free_table_ += 2 * kPageSize;
  STASIS_ASSERT(free_table_ <= kIdt);
  put(kTables + (kKernel >> 39 & 511) * 8, pdpt | kPresent | kWritable | kUsed);
  put(pdpt, pd | kPresent | kWritable | kUsed);
  for (u64 page = 0; page < kSize >> 21; ++page) put(pd + 8 * page, page << 21 | kPresent | kWritable | kUsed | kLarge);
}

void Guest::build_kernel() {
  const Kernel kernel(at(kText), kKernel + kText, kKernel + kControl);
  next_ = kernel.next;
  for (unsigned vector = 0; vector < 32; ++vector) {
    const u64 entry = kernel.entries[vector];
    const u64 user = vector == 3 || vector == 4 ? 0x6000 : 0;
    put(kIdt + 16 * vector, (entry & 0xffff) | u64{kKernelCode} << 16 | (0x8e00 | user) << 32 | (entry >> 16 & 0xffff) << 48);
    put(kIdt + 16 * vector + 8, entry >> 32);
  }
  put(kGdt + 0x10, 0x00af'9b00'0000'ffff);
  put(kGdt + 0x18, 0x00cf'9300'0000'ffff);
  put(kGdt + 0x20, 0x00cf'fb00'0000'ffff);
  put(kGdt + 0x28, 0x00cf'f300'0000'ffff);
  put(kGdt + 0x30, 0x00af'fb00'0000'ffff);
  put(kGdt + 0x40, 0x67 | (kTss & 0xff'ffff) << 16 | 0x8bull << 40);
  put(kGdt + 0x48, 0xffff'8000);
  const u64 stack = kKernel + kStackTop;
  std::memcpy(at(kTss + 4), &stack, 8);
}

VcpuState Guest::at_next() const {
  VcpuState s;
  s.rip = next_;
  s.gpr[kRsp] = kKernel + kStackTop;
  s.cr0 = 0x8005'0033;  // PG AM WP NE ET MP PE
  s.cr4 = 0x6a0;        // OSXMMEXCPT OSFXSR PGE PAE
  s.cr3 = kTables;
  s.efer = 0xd01;       // NXE LMA LME SCE
  const SegmentState data{.selector = kKernelData, .attributes = 0xc93, .limit = ~0u, .base = 0};
  s.cs = {.selector = kKernelCode, .attributes = 0xa9b, .limit = ~0u, .base = 0};
  s.ss = data;
  s.ds = s.es = {.selector = static_cast<u16>(kStackSelector), .attributes = 0xcf3, .limit = ~0u, .base = 0};
  s.fs = s.gs = {.selector = 0, .attributes = 0, .limit = 0, .base = 0};
  s.tr = {.selector = kTaskSelector, .attributes = 0x8b, .limit = 0x67, .base = kKernel + kTss};
  s.gdtr = {.base = kKernel + kGdt, .limit = 0x4f};
  s.idtr = {.base = kKernel + kIdt, .limit = 0x1ff};
  s.retired = engine_->retired();
  return s;
}

std::string Guest::run(unsigned count) {
  const Control control{kKernel + kOutcomes, kKernel + kStarts, count};
  std::memcpy(at(kControl), &control, sizeof(control));
  VcpuState state = at_next();
  engine_->set(state);
  engine_->memory_written(kMemory, kMemorySize);
  const StopReason reason = engine_->run(engine_->retired() + 4000ull * count);
  if (reason == StopReason::idle) return {};
  const VcpuState stopped = engine_->get();
  char text[160];
  std::snprintf(text, sizeof(text), "the engine stopped (reason %d) at RIP 0x%llx, vCPU failure '%s'", static_cast<int>(reason),
                static_cast<unsigned long long>(stopped.rip), engine_->failure().c_str());
  return text;
}

}  // namespace stasis::differential
