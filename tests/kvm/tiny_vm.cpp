// Making, running and taking apart the small machines.
#include "tiny_vm.hpp"

#include <gtest/gtest.h>

#include <cstring>

namespace stasis::tiny {
namespace {

constexpr u64 kRamSize = 2 * kMiB;
constexpr u64 kPml4 = 0x1000, kPdpt = 0x2000, kLow = 0x3000, kHigh = 0x4000, kGdt = 0x7000, kTss = 0xa000;
constexpr u64 kTable = 7, kLarge = 0x87;  // present, writable, user; 2 MiB

template <class T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().text().c_str());
    std::abort();
  }
  return std::move(*result);
}

void put(Rest& rest, u64 address, u64 value) { std::memcpy(&rest.ram[address], &value, 8); }

// movl $0xbad000VV, %eax; outl %eax, $kOut; out %al, $kDone; cli; hlt
constexpr u8 kUnexpected[] = {0xb8, 0, 0, 0xd0, 0xba, 0xe7, Outside::kOut, 0xe6, Outside::kDone, 0xfa, 0xf4};

}  // namespace

std::string no_kvm() {
  const auto kernel = kvm::host_kernel();
  const kvm::Choice choice = kvm::choose(*kernel);
  return choice.kvm ? "" : choice.why;
}

bool emulated_processor() {
  u32 eax = 0x4000'0000, ebx = 0, ecx = 0, edx = 0;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  constexpr u32 kTcg = 0x5447'4354;  // "TCGT"
  return ebx == kTcg;
}

u32 Outside::port_read(u16 port, unsigned) {
  if (port == kStop) return attention(), 0x5a;
  const u32 value = input(next_read++);
  if (stops()) attention();
  return value;
}

void Outside::port_write(u16 port, unsigned, u32 value) {
  if (port == kDone) return done = true, attention();
  written.push_back(value);
  if (stops()) attention();
}

u64 digest(Bytes ram) {
  u64 hash = 14695981039346656037ull;
  for (std::size_t at = 0; at < ram.size(); at += 8) {
    u64 value;
    std::memcpy(&value, &ram[at], 8);
    hash = (hash ^ value) * 1099511628211ull;
  }
  return hash;
}

void gate(Rest& rest, u8 vector, u64 handler, unsigned dpl) {
  put(rest, kIdt + vector * 16, (handler & 0xffff) | 8ull << 16 | (0x8e00ull | dpl << 13) << 32 | (handler >> 16 & 0xffff) << 48);
  put(rest, kIdt + vector * 16 + 8, handler >> 32);
}

void user_mode(VcpuState& vcpu) {
  vcpu.cpl = 3;
  vcpu.cs = {.selector = 0x2b, .attributes = 0xafb, .limit = ~0u, .base = 0};
  vcpu.ss = vcpu.ds = vcpu.es = {.selector = 0x23, .attributes = 0xcf3, .limit = ~0u, .base = 0};
}

Rest at_rest(Bytes program, u32 cpus) {
  Rest rest;
  rest.ram.resize(kRamSize);
  put(rest, kPml4, kPdpt | kTable);
  put(rest, kPdpt, kLow | kTable);
  put(rest, kPdpt + 3 * 8, kHigh | kTable);
  put(rest, kLow, kLarge);
  put(rest, kHigh + (Outside::kMmio >> 21 & 511) * 8, Outside::kMmio | kLarge);
  put(rest, kHigh + 503 * 8, 0xfee0'0000 | kLarge);
  put(rest, kGdt + 0x08, 0x00af'9b00'0000'ffff);
  put(rest, kGdt + 0x10, 0x00cf'9300'0000'ffff);
  put(rest, kGdt + 0x20, 0x00cf'f300'0000'ffff);
  put(rest, kGdt + 0x28, 0x00af'fb00'0000'ffff);
  put(rest, kGdt + 0x30, 0x0000'8b00'a000'0067);
  put(rest, kTss + 4, kStack - 0x1'0000);  // RSP0
  for (u64 vector = 0; vector < 256; ++vector) {
    u8* const handler = &rest.ram[kHandlers + vector * 16];
    std::memcpy(handler, kUnexpected, sizeof kUnexpected);
    handler[1] = static_cast<u8>(vector);
    gate(rest, static_cast<u8>(vector), kHandlers + vector * 16);
  }
  std::memcpy(&rest.ram[kCode], program.data(), program.size());
  VcpuState s;
  s.rip = kCode, s.gpr = {}, s.gpr[kRsp] = kStack, s.gpr[kR15] = 0xfee0'0000, s.gpr[kR8] = Outside::kMmio;
  s.cr0 = 0x8001'0033, s.cr3 = kPml4, s.cr4 = 0x620, s.efer = 0xd00;
  s.cs = {.selector = 8, .attributes = 0xa9b, .limit = ~0u, .base = 0};
  s.ss = s.ds = s.es = {.selector = 0x10, .attributes = 0xc93, .limit = ~0u, .base = 0};
  s.gdtr = {.base = kGdt, .limit = 0x3f}, s.idtr = {.base = kIdt, .limit = 0xfff};
  s.tr = {.selector = 0x30, .attributes = 0x8b, .limit = 0x67, .base = kTss};
  rest.vcpus.push_back(s);
  for (u32 id = 1; id < cpus; ++id) rest.vcpus.push_back({.activity = Activity::wait_for_sipi});
  for (u32 id = 0; id < cpus; ++id) {
    rest.apics.push_back(LocalApic::power_on(id));
    rest.apics.back().svr = 0x1ff;
  }
  return rest;
}

CpuContract common_contract(u32 cpus) {
  const auto system = must(kvm::System::open(kvm::host_kernel()));
  return must(make_contract("x86-64-v2", {.cpus = cpus, .memory_bytes = kRamSize, .tsc_hz = {}}, system.offer()));
}

TinyVm::TinyVm(Kind kind, const Rest& rest, Outside& outside, const CpuContract& contract)
    : outside_(outside), contract_(contract), memory_(must(GuestMemory::create(kRamSize))) {
  const u32 cpus = static_cast<u32>(rest.vcpus.size());
  for (const u16 port : {Outside::kOut, Outside::kIn, Outside::kStop, Outside::kDone}) ports_.map(port, port + 3, outside, 4);
  mmio_.map(Outside::kMmio, kPageSize, outside);
  std::memcpy(memory_.host(), rest.ram.data(), rest.ram.size());
  clock_.restore(rest.now);
  pvclock_ = rest.pvclock;
  if (kind == Kind::kvm) {
    engine_ = must(kvm::KvmEngine::create(must(kvm::System::open(kvm::host_kernel())),
                                          {.memory = memory_, .ports = ports_, .mmio = mmio_, .clock = clock_, .pvclock = pvclock_, .contract = contract_, .cpus = cpus}));
  } else {
    apic_ = std::make_unique<LocalApic>(clock_, 0, contract_.tsc_hz);
    engine_ = make_soft_engine({memory_, ports_, mmio_, clock_, *apic_, contract_, &pvclock_, 0});
  }
  engine_->connect({.pic_acknowledge = [] { return u8{0}; }, .eoi = [](u8) {}});
  for (u32 id = 0; id < cpus; ++id) {
    engine_->set(rest.vcpus[id], id);
    engine_->set_apic(rest.apics[id], id);
  }
  if (apic_) apic_->settle();
  outside.attention = [this] { engine_->attention(); };
  if (auto loaded = engine_->load(); !loaded) must<int>(std::unexpected(loaded.error()));
}

std::string TinyVm::run(u64 ns) {
  const u64 began = clock_.now();
  for (u64 left = ns; left > 0;) {
    const StopReason reason = engine_->run(engine_->retired() + left);
    if (reason == StopReason::failed || reason == StopReason::shutdown) return "the engine stopped: " + engine_->failure();
    if (reason != StopReason::idle) break;
    const u64 end = began + ns;
    if (clock_.now() >= end) break;
    clock_.advance_to(std::min(end, clock_.next_alarm()));
    left = end - clock_.now();
  }
  const auto held = engine_->hold();
  return held ? "" : held.error().text();
}

std::string TinyVm::run_to_done() {
  for (int turn = 0; turn < 600 && !outside_.done; ++turn)
    if (std::string wrong = run(100 * kMillisecond); !wrong.empty()) return wrong;
  return outside_.done ? "" : "the guest did not come to its end";
}

Rest TinyVm::save() {
  Rest rest;
  for (u32 id = 0; id < engine_->vcpus(); ++id) {
    rest.vcpus.push_back(engine_->get(id));
    rest.apics.push_back(engine_->get_apic(id));
  }
  rest.pvclock = pvclock_;
  rest.now = clock_.now();
  rest.ram.assign(memory_.host(), memory_.host() + memory_.size());
  return rest;
}

Rest TinyVm::as_kvm_has_it() {
  Rest rest = save();
  for (u32 id = 0; id < engine_->vcpus(); ++id) {
    rest.vcpus[id] = must(kvm().kernel_state(id));
    rest.apics[id] = must(kvm().kernel_apic(id));
  }
  return rest;
}

}  // namespace stasis::tiny
