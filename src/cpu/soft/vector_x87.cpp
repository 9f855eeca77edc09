// x87 by native thunks: FXRSTOR64 of an image of the guest's registers, the instruction, FXSAVE64 back.
//
// The image runs with the guest's own control word; unmasked exceptions stay pending in the image and never on
// the host, which gets FNINIT. Instruction and operand pointers are set here as a modern Intel
// processor does (SDM vol. 1, 8.1.8; CPUID.7:EBX bits 6 and 13 set): FIP by every instruction but the control
// ones; FDP and FOP only when an unmasked exception was raised; FCS and FDS always zero.
#include "cpu/soft/vector_x87.hpp"

namespace stasis::soft {
namespace {

constexpr u16 kBeforeStore = 0x1f;  // an unmasked exception of these keeps a store from happening: all but precision

u8* image_of(Cpu& cpu) { return cpu.scratch; }
u8* memory_of(Cpu& cpu) { return cpu.scratch + kX87Memory; }

void build_image(Cpu& cpu) {
  u8* const image = image_of(cpu);
  const FpuState& fpu = cpu.fpu;
  std::memset(image, 0, 24);
  poke<u16>(image, fpu.fcw);
  poke<u16>(image + 2, fpu.fsw);
  image[4] = fpu.ftw;
  poke<u32>(image + 24, _mm_getcsr());
  poke<u32>(image + 28, FpuState::kMxcsrMask);
  for (unsigned i = 0; i < 8; ++i) std::memcpy(image + 32 + 16 * i, fpu.st[i].data(), 10);
}
void take_image(Cpu& cpu) {
  const u8* const image = image_of(cpu);
  FpuState& fpu = cpu.fpu;
  fpu.fcw = peek<u16>(image);
  fpu.fsw = peek<u16>(image + 2);
  fpu.ftw = image[4];
  for (unsigned i = 0; i < 8; ++i) std::memcpy(fpu.st[i].data(), image + 32 + 16 * i, 10);
}

// FOP of an x87 instruction is kept in `dst` (bits 0 to 2) and `src`; its thunk in imm, the operand's size in extra.
u16 opcode_of(const Op* op) { return static_cast<u16>((op->dst & 7) << 8 | op->src); }
// Condition bits that it leaves undefined, C0 to C3 in bits 4 to 7 of `dst`, as a mask of FSW. They stay as they were.
u16 undefined_conditions(const Op* op) { return static_cast<u16>((op->dst & 0x70) << 4 | (op->dst & 0x80) << 7); }

[[gnu::noinline]] bool load_operand_bytes(Cpu& cpu, const Op* op) {
  const u64 linear = AnyAddress::linear(cpu, op);
  return AnyAddress::check(cpu, op, linear, op->extra, false) && cpu.read_bytes(linear, memory_of(cpu), op->extra, op);
}
[[gnu::noinline]] bool store_operand_bytes(Cpu& cpu, const Op* op) {
  const u64 linear = AnyAddress::linear(cpu, op);
  return AnyAddress::check(cpu, op, linear, op->extra, true) && cpu.write_bytes(linear, memory_of(cpu), op->extra, op);
}

bool uses_status_flags(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_FCOMI: case ZYDIS_MNEMONIC_FCOMIP: case ZYDIS_MNEMONIC_FUCOMI: case ZYDIS_MNEMONIC_FUCOMIP:
    case ZYDIS_MNEMONIC_FCMOVB: case ZYDIS_MNEMONIC_FCMOVBE: case ZYDIS_MNEMONIC_FCMOVE: case ZYDIS_MNEMONIC_FCMOVNB:
    case ZYDIS_MNEMONIC_FCMOVNBE: case ZYDIS_MNEMONIC_FCMOVNE: case ZYDIS_MNEMONIC_FCMOVNU: case ZYDIS_MNEMONIC_FCMOVU: return true;
    default: return false;
  }
}

}  // namespace

template <X87Operand kOperand, bool kFlags>
void run_x87(Cpu& cpu, const Op* op) {
  if (!x87_allowed(cpu, op)) return;
  if constexpr (kOperand == X87Operand::read) {
    if (!load_operand_bytes(cpu, op)) return;
  }
  build_image(cpu);
  // Status flags change by comparisons only, which either finish or, with an unmasked exception, set them too.
  reinterpret_cast<X87Code>(op->imm)(image_of(cpu), memory_of(cpu), kFlags ? &cpu.status : nullptr);
  const u16 fcw = peek<u16>(image_of(cpu)), fsw = peek<u16>(image_of(cpu) + 2);
  const bool raised = fsw & kFswEs;  // nothing was pending before
  if constexpr (kOperand == X87Operand::write) {
    const bool stored = !(raised && fsw & ~fcw & kBeforeStore);
    if (stored && !store_operand_bytes(cpu, op)) return;
  }
  const u16 kept = undefined_conditions(op), old = cpu.fpu.fsw;
  take_image(cpu);
  cpu.fpu.fsw = static_cast<u16>((cpu.fpu.fsw & ~kept) | (old & kept));
  cpu.fpu.fip = cpu.rip_of(op);
  if (raised) [[unlikely]] {
    cpu.fpu.fop = opcode_of(op);
    if constexpr (kOperand != X87Operand::none) cpu.fpu.fdp = AnyAddress::offset(cpu, op);
  }
  STASIS_NEXT(cpu, op);
}
template void run_x87<X87Operand::none, false>(Cpu&, const Op*);
template void run_x87<X87Operand::none, true>(Cpu&, const Op*);
template void run_x87<X87Operand::read, false>(Cpu&, const Op*);
template void run_x87<X87Operand::write, false>(Cpu&, const Op*);

Bound bind_x87(const Decoded& in, Op& op) {
  const ZydisDecodedInstruction& i = in.instruction;
  if (i.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || i.opcode < 0xd8 || i.opcode > 0xdf) return Bound::no;
  const auto& modrm = i.raw.modrm;
  const u8 byte = static_cast<u8>(modrm.mod << 6 | modrm.reg << 3 | modrm.rm);
  op.dst = static_cast<u8>((i.opcode & 7) | (i.fpu_flags ? i.fpu_flags->undefined & 0xf : 0) << 4);
  op.src = byte;
  const ZydisDecodedOperand* memory = nullptr;
  for (unsigned k = 0; k < i.operand_count; ++k) {
    if (is_memory(in.operands[k])) memory = &in.operands[k];
  }
  NormalForm form;
  form.add(i.opcode);
  form.add(memory ? static_cast<u8>(modrm.reg << 3 | 6) : byte);  // [rsi]
  if (memory) {
    fill_memory(in, *memory, op);
    op.extra = static_cast<u8>(memory->size / 8);
  }
  if (bind_x87_quick(in, op, form)) return Bound::goes_on;
  const bool flags = uses_status_flags(i.mnemonic);
  op.imm = in.thunks.get(flags ? ThunkKind::x87_flags : ThunkKind::x87, form);
  op.fn = !memory                                                ? (flags ? run_x87<X87Operand::none, true> : run_x87<X87Operand::none, false>)
          : memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? run_x87<X87Operand::write, false>
                                                                 : run_x87<X87Operand::read, false>;
  return Bound::goes_on;
}

}  // namespace stasis::soft
