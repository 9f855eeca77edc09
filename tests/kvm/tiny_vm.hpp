// For tests under KVM: a machine of 2 MiB, some ports and one page of MMIO, on either engine, and all that a save keeps of it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cpu/engine.hpp"
#include "cpu/kvm/engine.hpp"

namespace stasis::tiny {

// Why there is nothing to test here, or empty.
std::string no_kvm();
// Whether QEMU emulates this very processor.
bool emulated_processor();

// What the guest talks to. It outlives the machines that the guest goes through.
struct Outside final : PortDevice, MmioDevice {
  static constexpr u16 kOut = 0x80, kIn = 0x84, kStop = 0x88, kDone = 0xf4;  // four bytes wide each
  static constexpr u64 kMmio = 0xd000'0000;
  std::vector<u32> written;              // to kOut
  u32 next_read = 0;                     // kIn gives input(0), input(1), …
  u64 mmio_accesses = 0;
  bool done = false;
  std::function<bool()> stops = [] { return false; };  // after an access of kOut or kIn: whether to stop the machine
  std::function<void()> attention;                      // of the machine that has the guest

  static u32 input(u32 number) { return number * 0x9e37'79b1u >> 7; }
  u32 port_read(u16 port, unsigned size) override;
  void port_write(u16 port, unsigned size, u32 value) override;
  u64 mmio_read(u64 offset, unsigned) override { return ++mmio_accesses, offset; }
  void mmio_write(u64, unsigned, u64) override { ++mmio_accesses; }
};

// A machine at rest.
struct Rest {
  std::vector<VcpuState> vcpus;
  std::vector<LocalApicState> apics;
  PvclockState pvclock;
  u64 now = 0;
  std::vector<u8> ram;

  template <class T>
  T& at(u64 address) { return *reinterpret_cast<T*>(&ram[address]); }
};

// FNV-1a over RAM.
u64 digest(Bytes ram);

// 64-bit mode, everything below 2 MiB, kMmio and the local APIC's page mapped for user and supervisor; GDT 08 code,
// 10 data, 23 user data, 2b user code, 30 TSS; an IDT whose handlers all stop with kDone after writing 0xbad00000 | vector
// to kOut. Code at kCode, stack below kStack, R15 the local APIC, R8 kMmio. Interrupts off, local APICs switched on. vCPUs but the first wait.
inline constexpr u64 kCode = 0x1'0000, kStack = 0xf'0000, kData = 0x10'0000, kHandlers = 0xb000, kIdt = 0x9000;
Rest at_rest(Bytes program, u32 cpus = 1);
void gate(Rest& rest, u8 vector, u64 handler, unsigned dpl = 0);
void user_mode(VcpuState& vcpu);

class TinyVm {
 public:
  enum class Kind { soft, kvm };
  TinyVm(Kind kind, const Rest& rest, Outside& outside, const CpuContract& contract);

  // The guest runs until a device stops it or `ns` (KVM: of time; soft: instructions) are over; then it is held.
  // An error is a failure of the engine.
  std::string run(u64 ns);
  std::string run_to_done();
  Rest save();                        // of a held machine
  Rest as_kvm_has_it();               // KVM only: read from the kernel, not from what it was told
  Engine& engine() { return *engine_; }
  kvm::KvmEngine& kvm() { return static_cast<kvm::KvmEngine&>(*engine_); }
  u8* ram() { return memory_.host(); }

 private:
  Outside& outside_;
  const CpuContract contract_;
  GuestMemory memory_;
  PortBus ports_;
  MmioBus mmio_;
  Clock clock_;
  PvclockState pvclock_;
  std::unique_ptr<LocalApic> apic_;  // the soft engine's
  std::unique_ptr<Engine> engine_;
};

// What both engines can show (x86-64-v2 at this host's TSC rate).
CpuContract common_contract(u32 cpus = 1);

}  // namespace stasis::tiny

// PROGRAM(name, "assembly"): 64-bit code (AT&T syntax) that is linked to run at kCode; `program_of(name)`.
#define PROGRAM(name, text)                                                                                       \
  asm(".pushsection .rodata\n.code64\n.balign 16\n.global " #name "_begin\n" #name "_begin:\n" text "\n.global " #name "_end\n" #name \
      "_end:\n.popsection");                                                                                       \
  extern "C" const unsigned char name##_begin[], name##_end[]
#define PROGRAM_OF(name) stasis::Bytes(name##_begin, static_cast<std::size_t>(name##_end - name##_begin))
// The address that a label of a program has for the guest.
#define PLACE_OF(name, label) (stasis::tiny::kCode + static_cast<stasis::u64>(label - name##_begin))
