// The notes of an ELF core. Forms: Linux's elf_prstatus and user_regs_struct of x86-64 as the psABI fixes them, FXSAVE and
// XSAVE areas (Intel SDM vol. 1, 10.5.1 and 13.4), and QEMU's CPU note, version 1.
#include <algorithm>
#include <cstring>

#include "inspect/elf_core.hpp"

namespace stasis::inspect {
namespace {

constexpr u32 kPrstatus = 1, kFpregset = 2, kXstate = 0x202, kQemuCpu = 0;

class Buffer {
 public:
  explicit Buffer(std::size_t size = 0) : bytes(size) {}
  template <class T>
  void put(std::size_t at, T value) { std::memcpy(bytes.data() + at, &value, sizeof value); }
  template <class T>
  void add(T value) {
    bytes.resize(bytes.size() + sizeof value);
    put(bytes.size() - sizeof value, value);
  }
  template <std::size_t N, std::size_t Size>
  void put_registers(std::size_t at, std::size_t step, const std::array<std::array<u8, Size>, N>& registers) {
    for (std::size_t i = 0; i < N; ++i) std::copy(registers[i].begin(), registers[i].end(), bytes.begin() + static_cast<std::ptrdiff_t>(at + i * step));
  }
  std::vector<u8> bytes;
};

void add_note(std::vector<u8>& out, std::string_view name, u32 type, const std::vector<u8>& body) {
  Buffer note;
  note.add(static_cast<u32>(name.size() + 1));
  note.add(static_cast<u32>(body.size()));
  note.add(type);
  note.bytes.insert(note.bytes.end(), name.begin(), name.end());
  note.bytes.push_back(0);
  note.bytes.resize(align_up(note.bytes.size(), 4));
  note.bytes.insert(note.bytes.end(), body.begin(), body.end());
  note.bytes.resize(align_up(note.bytes.size(), 4));
  out.insert(out.end(), note.bytes.begin(), note.bytes.end());
}

std::vector<u8> prstatus(const Vcpu& vcpu) {
  constexpr std::size_t kSize = 336, kPid = 32, kRegisters = 112;
  const auto& r = vcpu.gpr;
  const u64 none = ~0ull;  // orig_rax: not in a system call
  const u64 registers[] = {r[kR15], r[kR14], r[kR13], r[kR12], r[kRbp], r[kRbx], r[kR11], r[kR10], r[kR9], r[kR8], r[kRax], r[kRcx],
                           r[kRdx], r[kRsi], r[kRdi], none, vcpu.rip, vcpu.cs.selector, vcpu.rflags, r[kRsp], vcpu.ss.selector,
                           vcpu.fs.base, vcpu.gs.base, vcpu.ds.selector, vcpu.es.selector, vcpu.fs.selector, vcpu.gs.selector};
  Buffer out(kSize);
  out.put(kPid, u32{vcpu.number + 1});  // 0 would be no thread to a debugger
  for (std::size_t i = 0; i < std::size(registers); ++i) out.put(kRegisters + i * 8, registers[i]);
  out.put(kRegisters + sizeof registers, u32{1});  // pr_fpvalid
  return std::move(out.bytes);
}

// The 512 bytes of FXSAVE.
Buffer fxsave(const FloatingPoint& fpu, std::size_t size = 512) {
  Buffer out(size);
  out.put(0, fpu.fcw);
  out.put(2, fpu.fsw);
  out.put(4, fpu.ftw);
  out.put(6, fpu.fop);
  out.put(8, fpu.fip);
  out.put(16, fpu.fdp);
  out.put(24, fpu.mxcsr);
  out.put(28, u32{0xffff});  // MXCSR_MASK
  out.put_registers(32, 16, fpu.st);
  out.put_registers(160, 16, fpu.xmm);
  return out;
}

// In the standard (not compacted) form, as large as XCR0 needs.
std::vector<u8> xsave(const Vcpu& vcpu) {
  constexpr u64 kAvx = 1 << 2, kBounds = 1 << 3, kBoundsControl = 1 << 4, kAvx512 = 7 << 5, kPkru = 1 << 9;
  constexpr u64 kTold = 3 | kAvx | kBounds | kBoundsControl | kAvx512 | kPkru;
  const ExtendedState& x = vcpu.xsave;
  const u64 components = (x.xcr0 & kTold) | 3;
  const std::size_t size = components & kPkru ? 2696 : components & kAvx512 ? 2688 : components & (kBounds | kBoundsControl) ? 1088 : 832;
  Buffer out = fxsave(vcpu.fpu, size);
  out.put(464, components);                         // where debuggers look for XCR0
  out.put(512, u64{3} | (x.in_use & components));   // XSTATE_BV: what is not told here is in its initial state
  if (components & kAvx) out.put_registers(576, 16, x.ymm_high);
  if (components & kBounds) out.put_registers(960, 16, x.bounds);
  if (components & kBoundsControl) out.put(1024, x.bndcfgu), out.put(1032, x.bndstatus);
  if (components & kAvx512) {
    for (std::size_t i = 0; i < x.opmask.size(); ++i) out.put(1088 + 8 * i, x.opmask[i]);
    out.put_registers(1152, 32, x.zmm_high);
    out.put_registers(1664, 64, x.zmm16_31);
  }
  if (components & kPkru) out.put(2688, u64{x.pkru});
  return std::move(out.bytes);
}

void add_segment(Buffer& out, u32 selector, u32 limit, u32 attributes, u64 base) {
  out.add(selector);
  out.add(limit);
  out.add((attributes & 0xff) << 8 | (attributes & 0xf00) << 12);  // as in the upper half of a descriptor
  out.add(u32{0});
  out.add(base);
}

std::vector<u8> qemu_cpu(const Vcpu& vcpu) {
  constexpr u32 kVersion = 1, kSize = 440;
  const auto& r = vcpu.gpr;
  Buffer out;
  out.add(kVersion);
  out.add(kSize);
  for (const u64 value : {r[kRax], r[kRbx], r[kRcx], r[kRdx], r[kRsi], r[kRdi], r[kRsp], r[kRbp], r[kR8], r[kR9], r[kR10], r[kR11],
                          r[kR12], r[kR13], r[kR14], r[kR15], vcpu.rip, vcpu.rflags})
    out.add(value);
  for (const Segment* s : {&vcpu.cs, &vcpu.ds, &vcpu.es, &vcpu.fs, &vcpu.gs, &vcpu.ss, &vcpu.ldtr, &vcpu.tr})
    add_segment(out, s->selector, s->limit, s->attributes, s->base);
  for (const DescriptorTable* t : {&vcpu.gdtr, &vcpu.idtr}) add_segment(out, 0, t->limit, 0, t->base);
  for (const u64 value : {vcpu.cr0, u64{0}, vcpu.cr2, vcpu.cr3, vcpu.cr4, vcpu.kernel_gs_base}) out.add(value);
  STASIS_ASSERT(out.bytes.size() == kSize);
  return std::move(out.bytes);
}

}  // namespace

std::vector<u8> core_notes(const std::vector<Vcpu>& vcpus) {
  std::vector<u8> out;
  // A thread's notes follow its NT_PRSTATUS.
  for (const Vcpu& vcpu : vcpus) {
    add_note(out, "CORE", kPrstatus, prstatus(vcpu));
    add_note(out, "CORE", kFpregset, fxsave(vcpu.fpu).bytes);
    if (vcpu.xsave.xcr0 & 4) add_note(out, "LINUX", kXstate, xsave(vcpu));
  }
  for (const Vcpu& vcpu : vcpus) add_note(out, "QEMU", kQemuCpu, qemu_cpu(vcpu));
  return out;
}

}  // namespace stasis::inspect
