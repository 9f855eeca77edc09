// Memory access beyond the TLB: RAM that is watched, devices, page crossings.
#include "cpu/soft/mmu.hpp"

#include <algorithm>

#include "cpu/engine.hpp"
#include "cpu/soft/code_cache.hpp"

namespace stasis::soft {

bool Mmu::is_device(u64 physical) const {
  return memory_.offset_of(physical) == GuestMemory::kNotRam ||
         (cpu_.apic->mmio_enabled() && (physical & ~0xfffull) == cpu_.apic->base_address());
}

u64 Mmu::read_device(u64 physical, unsigned size) {
  LocalApic& apic = *cpu_.apic;
  if (apic.mmio_enabled() && (physical & ~0xfffull) == apic.base_address()) return apic.mmio_read(physical & 0xfff, size);
  return cpu_.board->mmio.read(physical, size);
}

void Mmu::write_device(u64 physical, unsigned size, u64 value) {
  LocalApic& apic = *cpu_.apic;
  if (apic.mmio_enabled() && (physical & ~0xfffull) == apic.base_address()) apic.mmio_write(physical & 0xfff, size, value);
  else cpu_.board->mmio.write(physical, size, value);
}

void Mmu::store_ram(u64 physical, const void* in, unsigned size, const Op* op) {
  const u64 offset = memory_.offset_of(physical), page = offset >> 12;
  if (flags_[page] & kTable) table_stored(page, offset & 0xfff, size, in, op);
  std::memcpy(memory_.host() + offset, in, size);
  mark_written(page);
  if (flags_[page] & kCode) code_.stored(physical, size, op);
}

bool Mmu::load_bytes(u64 linear, void* out, unsigned size, View view, const Op* op) {
  const unsigned first = std::min<unsigned>(size, 0x1000 - (linear & 0xfff));
  if (const TlbEntry& hit = space_->views[view].read[linear >> 12 & (kTlbEntries - 1)];
      hit.tag == (linear & ~0xfffull) && first == size) {
    std::memcpy(out, reinterpret_cast<const void*>(linear + hit.addend), size);
    return true;
  }
  u64 physical[2];
  if (!map(linear, Access::read, view, op, physical[0])) return false;
  if (first < size && !map(wrap(linear + first), Access::read, view, op, physical[1])) return false;
  if (!cpu_.alone && (is_device(physical[0]) || (first < size && is_device(physical[1])))) {
    cpu_.leave_alone(op);
    return false;
  }
  u8* bytes = static_cast<u8*>(out);
  for (unsigned part = 0; part < (first < size ? 2u : 1u); ++part) {
    unsigned left = part ? size - first : first;
    u64 at = physical[part];
    if (!is_device(at)) {
      std::memcpy(bytes, memory_.host() + memory_.offset_of(at), left);
      bytes += left;
      continue;
    }
    while (left) {
      const unsigned piece = std::bit_floor(std::min(left, 8u));
      const u64 value = read_device(at, piece);
      std::memcpy(bytes, &value, piece);
      bytes += piece, at += piece, left -= piece;
    }
  }
  return true;
}

bool Mmu::store_bytes(u64 linear, const void* in, unsigned size, View view, const Op* op) {
  const unsigned first = std::min<unsigned>(size, 0x1000 - (linear & 0xfff));
  if (const TlbEntry& hit = space_->views[view].write[linear >> 12 & (kTlbEntries - 1)];
      hit.tag == (linear & ~0xfffull) && first == size) {
    std::memcpy(reinterpret_cast<void*>(linear + hit.addend), in, size);
    return true;
  }
  u64 physical[2];
  if (!map(linear, Access::write, view, op, physical[0])) return false;
  if (first < size && !map(wrap(linear + first), Access::write, view, op, physical[1])) return false;
  if (!cpu_.alone && (is_device(physical[0]) || (first < size && is_device(physical[1])))) {
    cpu_.leave_alone(op);
    return false;
  }
  const u8* bytes = static_cast<const u8*>(in);
  for (unsigned part = 0; part < (first < size ? 2u : 1u); ++part) {
    unsigned left = part ? size - first : first;
    u64 at = physical[part];
    if (!is_device(at)) {
      store_ram(at, bytes, left, op);
      bytes += left;
      continue;
    }
    while (left) {
      const unsigned piece = std::bit_floor(std::min(left, 8u));
      u64 value = 0;
      std::memcpy(&value, bytes, piece);
      write_device(at, piece, value);
      bytes += piece, at += piece, left -= piece;
    }
  }
  return true;
}

bool Mmu::probe_write(u64 linear, unsigned size, View view, const Op* op) {
  const unsigned first = std::min<unsigned>(size, 0x1000 - (linear & 0xfff));
  u64 physical;
  return map(linear, Access::write, view, op, physical) &&
         (first >= size || map(wrap(linear + first), Access::write, view, op, physical));
}

Loaded Mmu::load(u64 linear, unsigned size, View view, const Op* op) {
  u64 value = 0;
  const bool ok = load_bytes(linear, &value, size, view, op);
  return {value, ok};
}

bool Mmu::store(u64 linear, u64 value, unsigned size, View view, const Op* op) {
  return store_bytes(linear, &value, size, view, op);
}

// ---- what handlers call -----------------------------------------------------------------------------------------

Loaded Cpu::read_slow(u64 linear, unsigned size, const Op* op) { return mmu->load(linear, size, mmu->view(), op); }

bool Cpu::write_slow(u64 linear, u64 value, unsigned size, const Op* op) {
  return mmu->store_bytes(linear, &value, size, mmu->view(), op);
}

Loaded Cpu::read_for_write(u64 linear, unsigned size, const Op* op) {
  if (!mmu->probe_write(linear, size, mmu->view(), op)) return {0, false};
  return mmu->load(linear, size, mmu->view(), op);
}

bool Cpu::read_bytes(u64 linear, void* out, unsigned size, const Op* op) {
  return mmu->load_bytes(linear, out, size, mmu->view(), op);
}

bool Cpu::write_bytes(u64 linear, const void* in, unsigned size, const Op* op) {
  return mmu->store_bytes(linear, in, size, mmu->view(), op);
}

// ---- ending the running block ---------------------------------------------------------------------------------

static void broken_here(Cpu& cpu, const Op* op) {
  cpu.rip = cpu.rip_of(op);
  cpu.budget += cpu.block->count - op->position;
}

void break_after(Cpu& cpu, const Op* op) {
  if (!op) return;
  mend_break(cpu);
  cpu.broken = const_cast<Op*>(op + 1);
  cpu.broken_fn = op[1].fn;
  cpu.broken->fn = broken_here;
}

void mend_break(Cpu& cpu) {
  if (!cpu.broken) return;
  cpu.broken->fn = cpu.broken_fn;
  cpu.broken = nullptr;
}

}  // namespace stasis::soft
