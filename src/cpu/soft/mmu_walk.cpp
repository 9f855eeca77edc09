// Page walks and filling the TLB (Intel SDM vol. 3A, chapter 4).
#include "cpu/soft/mmu.hpp"

#include <algorithm>

#include "cpu/soft/code_cache.hpp"

namespace stasis::soft {
namespace {

constexpr u64 kWriteBit = 2, kUserBit = 4, kDirty = 0x40, kLarge = 0x80, kNoExecute = 1ull << 63;
constexpr u64 kAddressBits = 0x000f'ffff'ffff'f000;

}  // namespace

bool Mmu::read_entry(u64 address, unsigned bytes, u64& entry) {
  const u64 offset = memory_.offset_of(address & a20_mask_);
  entry = ~0ull;  // as unmapped memory reads
  if (offset == GuestMemory::kNotRam) return false;
  entry = 0;
  std::memcpy(&entry, memory_.host() + offset, bytes);
  return true;
}

void Mmu::write_entry(const Step& step, u64 entry) {
  const u64 address = step.address & a20_mask_;
  const u64 offset = memory_.offset_of(address);
  if (offset == GuestMemory::kNotRam) return;
  std::memcpy(memory_.host() + offset, &entry, step.bytes);
  mark_written(offset >> 12);
  if (flags_[offset >> 12] & kCode) code_.stored(address, step.bytes, op_);
}

bool Mmu::permitted(Access access, View view, bool user_page, bool writable, bool no_execute) const {
  if (access == Access::fetch && no_execute) return false;
  if (view == kUser) return user_page && (access != Access::write || writable);
  if (user_page && access == Access::fetch && (cpu_.sys.cr4 & kCr4Smep)) return false;
  if (user_page && access != Access::fetch && (cpu_.sys.cr4 & kCr4Smap) && view != kSupervisorAc) return false;
  return access != Access::write || writable || !(cpu_.sys.cr0 & kCr0Wp);
}

bool Mmu::walk_tables(u64 linear, Access access, View view, Walk& out) {
  const VcpuState& sys = cpu_.sys;
  const bool lma = sys.efer & kEferLma, wide = lma || (sys.cr4 & kCr4Pae);
  const bool nxe = wide && (sys.efer & kEferNxe);
  const unsigned bytes = wide ? 8 : 4, bits = wide ? 9 : 10;
  out.error = (access == Access::write ? 2u : 0u) | (view == kUser ? 4u : 0u) |
              (access == Access::fetch && (nxe || (sys.cr4 & kCr4Smep)) ? 0x10u : 0u);
  u64 table = lma ? sys.cr3 & kTableAddress : wide ? sys.cr3 & 0xffff'ffe0 : sys.cr3 & 0xffff'f000;
  bool user_page = true, writable = true, no_execute = false;
  Step steps[4];
  unsigned count = 0;
  for (unsigned level = lma ? 4 : wide ? 3 : 2;; --level) {
    const unsigned shift = 12 + bits * (level - 1);
    Step& step = steps[count++];
    step = {table + (linear >> shift & ((1u << bits) - 1)) * bytes, 0, level, bytes};
    const bool pointer = wide && !lma && level == 3;  // a PAE PDPTE
    if (!read_entry(step.address, bytes, step.entry)) out.cacheable = false;
    const u64 entry = step.entry;
    if (!(entry & kEntryPresent)) return false;
    const bool large = level > 1 && (entry & kLarge) && !pointer && (wide ? level <= 3 : (sys.cr4 & kCr4Pse) != 0);
    u64 reserved = 0;
    if (wide) {
      reserved = (kAddressBits >> physical_bits_ << physical_bits_) | (nxe ? 0 : kNoExecute) | (lma ? 0 : 0x7ff0'0000'0000'0000);
      if (pointer) reserved |= 0x1e6 | kNoExecute;
      if (level == 4) reserved |= kLarge;
      if (large) reserved |= level == 3 ? 0x3fff'e000 : 0x1f'e000;
    } else if (large) {
      reserved = 1u << 21;
    }
    if (entry & reserved) {
      out.error |= 9;
      return false;
    }
    if (!pointer) {
      user_page &= (entry & kUserBit) != 0;
      writable &= (entry & kWriteBit) != 0;
      no_execute |= nxe && (entry & kNoExecute);
    }
    if (level == 1 || large) {
      const u64 inside = (1ull << shift) - 1;
      const u64 base = wide ? entry & kTableAddress & ~inside
                            : large ? (entry & 0xffc0'0000) | (entry >> 13 & 0xff) << 32 : entry & 0xffff'f000;
      out.physical = base | (linear & inside);
      break;
    }
    table = entry & (wide ? kTableAddress : 0xffff'f000);
  }
  if (!permitted(access, view, user_page, writable, no_execute)) {
    out.error |= 1;
    return false;
  }
  for (unsigned i = 0; i < count; ++i) {
    const Step& step = steps[i];
    const bool pointer = wide && !lma && step.level == 3;
    const u64 wanted = step.entry | kEntryAccessed | (access == Access::write && i + 1 == count ? kDirty : 0);
    if (!pointer && wanted != step.entry) write_entry(step, wanted);
    if (out.cacheable) mark_table(step.address & a20_mask_, step.level, linear, *space_);
  }
  return true;
}

bool Mmu::walk(u64 linear, Access access, View view, Walk& out) {
  if (cpu_.sys.cr0 & kCr0Pg) {
    if (!walk_tables(linear, access, view, out)) return false;
  } else {
    out.physical = linear;
  }
  out.physical &= a20_mask_;
  return true;
}

void Mmu::fill(u64 linear, u64 physical, Access access, View view) {
  const u64 page = page_of(physical);
  const u64 tag = linear & ~0xfffull;
  const TlbEntry entry{tag, reinterpret_cast<u64>(host_of_page(page)) - tag};
  TlbView& views = space_->views[view];
  space_->used[view] = true;
  const u64 slot = linear >> 12 & (kTlbEntries - 1);
  views.read[slot] = entry;
  if (access == Access::write && !(flags_[page] & (kCode | kTable))) {
    views.write[slot] = entry;
    flags_[page] |= kWritable;
    mark_written(page);
  }
}

bool Mmu::map(u64 linear, Access access, View view, const Op* op, u64& physical) {
  if (!(cpu_.sys.efer & kEferLma)) {
    linear = static_cast<u32>(linear);
  } else if (!is_canonical(linear)) {
    cpu_.raise(op, op && op->segment == kSs ? kSsFault : kGp, 0);
    return false;
  }
  Walk found;
  op_ = op;
  if (!walk(linear, access, view, found)) {
    cpu_.sys.cr2 = linear;
    cpu_.raise(op, kPf14, found.error);
    return false;
  }
  physical = found.physical;
  if (found.cacheable && access != Access::fetch && !is_device(physical)) fill(linear, physical, access, view);
  return true;
}

bool Mmu::fetch(u64 linear, u64& physical) {
  const bool user = cpu_.cpl == 3;
  ExecView& exec = running_code();
  TlbEntry& entry = exec.entries[linear >> 12 & (kExecEntries - 1)];
  const u64 page = linear & ~0xfffull;
  const bool fresh = entry.tag != page;
  if (fresh) {
    if (!map(linear, Access::fetch, user ? kUser : kSupervisor, nullptr, physical)) return false;
    entry = {page, physical - linear};
    exec.used = true;
    if (!user) add_root(linear);
  }
  physical = linear + entry.addend;
  u64& vouched = exec.vouched[linear >> 12 & (kExecEntries - 1)];
  if (fresh || vouched != exec.salt) {
    if (exec.pages.size() >= exec.pages_limit) {
      std::sort(exec.pages.begin(), exec.pages.end());
      exec.pages.erase(std::unique(exec.pages.begin(), exec.pages.end()), exec.pages.end());
      exec.pages_limit = std::max<u64>(2048, 2 * exec.pages.size());
    }
    const unsigned bit = filter_bit(linear);
    exec.filter[bit >> 6] |= 1ull << (bit & 63);
    exec.pages.push_back(page);
    vouched = exec.salt;
  }
  return true;
}

bool Mmu::consistent() {
  const u64 reads = reinterpret_cast<u64>(memory_.host());
  for (unsigned v = 0; v < 3; ++v)
    for (const auto* entries : {&space_->views[v].read, &space_->views[v].write})
      for (const TlbEntry& entry : *entries) {
        if (entry.tag == ~0ull) continue;
        Walk found;
        const bool write = entries == &space_->views[v].write;
        if (!walk(entry.tag, write ? Access::write : Access::read, static_cast<View>(v), found)) return false;
        if (entry.tag + entry.addend - reads != memory_.offset_of(found.physical)) return false;
      }
  return true;
}

}  // namespace stasis::soft
