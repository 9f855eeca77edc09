// Page walks and the coherent TLB (Intel SDM vol. 3A, chapter 4).
#include "cpu/soft/mmu.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "cpu/engine.hpp"
#include "cpu/soft/code_cache.hpp"

namespace stasis::soft {
namespace {

constexpr u64 kPresent = 1, kWriteBit = 2, kUserBit = 4, kAccessed = 0x20, kDirty = 0x40, kLarge = 0x80, kNoExecute = 1ull << 63;
constexpr u64 kAddress = ((1ull << kPhysicalBits) - 1) & ~0xfffull;
constexpr u64 kReservedHigh = 0x000f'ffff'ffff'f000ull & ~kAddress;
constexpr unsigned kUnmarkAfter = 64;  // slow stores into a table page without a walk through it

template <class T>
T* lazy_array(u64 count) {
  T* array = static_cast<T*>(std::calloc(count, sizeof(T)));
  STASIS_ASSERT(array != nullptr);
  return array;
}

constexpr unsigned filter_bit(u64 linear) { return static_cast<unsigned>((linear >> 12 ^ linear >> 24) & 4095); }

}  // namespace

Mmu::Mmu(Cpu& cpu, GuestMemory& memory, CodeCache& code)
    : cpu_(cpu), memory_(memory), code_(code), spaces_(new Space[kSpaces]), kernels_(new KernelView[kSpaces]), space_(&spaces_[0]) {
  flags_.reset(lazy_array<u8>(memory.pages()));
  stores_.reset(lazy_array<u8>(memory.pages()));
  maps_.reset(lazy_array<u64>(memory.pages()));
  kernel_jumps_.reset(new JumpEntry[1ull << kJumpBits]);
  for (unsigned i = 0; i < kSpaces; ++i) {
    spaces_[i].user_jumps.reset(new JumpEntry[1ull << kJumpBits]);
    spaces_[i].kernel = &kernels_[i];
  }
}

// ---- what was changed ---------------------------------------------------------------------------------------

void Mmu::reset() {
  code_.drop_all();
  std::fill_n(flags_.get(), memory_.pages(), u8{0});
  for (unsigned i = 0; i < kSpaces; ++i) spaces_[i].cr3 = ~0ull;
  paging_changed();
}

void Mmu::paging_changed() {
  flush(nullptr);
  cr3_changed();
}

void Mmu::cr3_changed() {
  if (!(cpu_.sys.efer & kEferLma)) flush(nullptr);  // several address spaces are for 64-bit systems
  Space* oldest = &spaces_[0];
  Space* found = nullptr;
  for (unsigned i = 0; i < kSpaces; ++i) {
    if (spaces_[i].cr3 == cpu_.sys.cr3) found = &spaces_[i];
    if (spaces_[i].last_used < oldest->last_used) oldest = &spaces_[i];
  }
  if (!found) {
    found = oldest;
    found->cr3 = cpu_.sys.cr3;
    forget(*found);
  }
  join_kernel(*found, space_->kernel);
  found->last_used = ++clock_;
  space_ = found;
  select();
}

// Does a walk from `cr3` find the same supervisor code?
bool Mmu::agrees(const KernelView& kernel, u64 cr3) {
  for (const KernelView::Root& root : kernel.roots) {
    u64 entry;
    if (!read_entry((cr3 & kAddress) + root.index * 8, 8, entry) || entry != root.entry) return false;
  }
  return true;
}

void Mmu::join_kernel(Space& space, KernelView* preferred) {
  for (KernelView* kernel : {preferred, space.kernel}) {
    if (!kernel || !agrees(*kernel, space.cr3)) continue;
    if (!kernel->roots.empty()) mark_table((space.cr3 & kAddress) & a20_mask_, 4, 0, space);
    space.kernel = kernel;
    return;
  }
  for (unsigned k = 0; k < kSpaces; ++k) {  // as many views as spaces: one is free
    bool taken = false;
    for (unsigned i = 0; i < kSpaces; ++i) taken = taken || (&spaces_[i] != &space && spaces_[i].kernel == &kernels_[k]);
    if (taken) continue;
    space.kernel = &kernels_[k];
    flush(kernels_[k], nullptr);
    kernels_[k].roots.clear();
    return;
  }
}

// The top-level entry that supervisor code at `linear` was just found through.
void Mmu::add_root(u64 linear) {
  KernelView& kernel = *space_->kernel;
  if (!(cpu_.sys.efer & kEferLma)) return;
  const unsigned index = linear >> 39 & 511;
  for (const KernelView::Root& root : kernel.roots)
    if (root.index == index) return;
  u64 entry;
  read_entry((space_->cr3 & kAddress) + index * 8, 8, entry);
  kernel.roots.push_back({index, entry});
}

void Mmu::select_data() {
  const bool access = (cpu_.rflags_rest & kAc) && (cpu_.sys.cr4 & kCr4Smap);
  view_ = cpu_.cpl == 3 ? kUser : access ? kSupervisorAc : kSupervisor;
  cpu_.tlb = &space_->views[view_];
  space_->used[view_] = true;
}

void Mmu::select() {
  const bool user = cpu_.cpl == 3;
  select_data();
  cpu_.jump = user ? space_->user_jumps.get() : kernel_jumps_.get();
  const SegmentState& cs = cpu_.seg[kCs];
  cpu_.long_mode = (cpu_.sys.efer & kEferLma) && cs.long_mode();
  Context now{.mode = 2};
  if (!cpu_.long_mode) now = {(cs.big() ? 1u : 0u) | (cpu_.seg[kSs].big() ? 4u : 0u), cs.base, cs.limit};
  mode_ = now.mode;
  if (now != context_[user]) {
    context_[user] = now;
    for (unsigned i = 0; i < kSpaces; ++i) bump(user ? spaces_[i].user : kernels_[i], nullptr);
  }
  cpu_.salt = running_code().salt;
}

void Mmu::set_a20(bool open) {
  const u64 mask = open ? ~0ull : ~(1ull << 20);
  if (mask == a20_mask_) return;
  a20_mask_ = mask;
  code_.drop_all();
  flush(nullptr);
}

void Mmu::memory_written(u64 physical, u64 size) {
  for (const u64 end = physical + size; physical < end;) {
    const u64 next = std::min(end, align_down(physical, kPageSize) + kPageSize);
    const u64 page = page_of(physical);
    if (page != GuestMemory::kNotRam) {
      if (flags_[page] & kTable) drop_table(page, nullptr);
      if (flags_[page] & kCode) code_.stored(physical, next - physical, nullptr);
    }
    physical = next;
  }
}

// ---- dropping -----------------------------------------------------------------------------------------------

u64 Mmu::next_salt() {
  if (++epoch_ >= 0x7f00) {  // salts use bits 48..62, where canonical addresses have copies of one bit
    epoch_ = 1;
    code_.forget_links();
    std::fill_n(kernel_jumps_.get(), 1ull << kJumpBits, JumpEntry{});
    for (unsigned i = 0; i < kSpaces; ++i) {
      std::fill_n(spaces_[i].user_jumps.get(), 1ull << kJumpBits, JumpEntry{});
      spaces_[i].user.salt = epoch_++ << 48;
      kernels_[i].salt = epoch_++ << 48;
    }
    cpu_.salt = running_code().salt;
  }
  return epoch_ << 48;
}

void Mmu::bump(ExecView& exec, const Op* op) {
  exec.salt = next_salt();
  exec.filter = {};
  exec.pages.clear();
  if (&exec == &running_code()) {
    cpu_.salt = exec.salt;
    break_after(cpu_, op);
  }
}

void Mmu::code_dropped(const Op* op) {
  for (unsigned i = 0; i < kSpaces; ++i) {
    bump(spaces_[i].user, op);
    bump(kernels_[i], op);
  }
}

void Mmu::flush(ExecView& exec, const Op* op) {
  if (!std::exchange(exec.used, false)) return;
  exec.entries.fill({});
  bump(exec, op);
}

void Mmu::flush(const Op* op) {
  for (unsigned i = 0; i < kSpaces; ++i) {
    Space& space = spaces_[i];
    for (unsigned v = 0; v < 3; ++v)
      if (std::exchange(space.used[v], false)) space.views[v] = {};
    flush(space.user, op);
    flush(kernels_[i], op);
    kernels_[i].roots.clear();
  }
  space_->used[view_] = true;
}

// Forgets what was translated in the 1 << shift bytes at `linear`, which is aligned to that.
void Mmu::drop_range(ExecView& exec, u64 linear, unsigned shift, const Op* op) {
  if (!exec.used) return;
  if (shift == 12) {
    TlbEntry& entry = exec.entries[linear >> 12 & (kExecEntries - 1)];
    if (entry.tag == linear) entry = {};
    const unsigned bit = filter_bit(linear);
    if (!(exec.filter[bit >> 6] >> (bit & 63) & 1)) return;
    if (std::find(exec.pages.begin(), exec.pages.end(), linear) != exec.pages.end()) bump(exec, op);
    return;
  }
  for (TlbEntry& entry : exec.entries)
    if ((entry.tag ^ linear) >> shift == 0) entry = {};
  for (const u64 page : exec.pages)
    if ((page ^ linear) >> shift == 0) return bump(exec, op);
}

void Mmu::drop_range(u64 linear, unsigned shift, u64 spaces, const Op* op) {
  const u64 slot = linear >> 12 & (kTlbEntries - 1);
  for (unsigned i = 0; i < kSpaces; ++i) {
    drop_range(kernels_[i], linear, shift, op);  // shared between spaces
    if (!(spaces >> i & 1)) continue;
    Space& space = spaces_[i];
    drop_range(space.user, linear, shift, op);
    for (unsigned v = 0; v < 3; ++v) {
      TlbView& view = space.views[v];
      if (!space.used[v]) continue;
      if (shift == 12) {
        if (view.read[slot].tag == linear) view.read[slot] = {};
        if (view.write[slot].tag == linear) view.write[slot] = {};
        continue;
      }
      for (auto* const entries : {&view.read, &view.write})
        for (TlbEntry& entry : *entries)
          if ((entry.tag ^ linear) >> shift == 0) entry = {};
    }
  }
}

// Everything that came through a table page, and its mark.
void Mmu::drop_table(u64 page, const Op* op) {
  const u64 maps = std::exchange(maps_[page], 0);
  const unsigned level = maps & kLevel;
  flags_[page] &= static_cast<u8>(~kTable);
  if (level == 0) return;
  if (maps & kSeveral) return flush(op);
  if (level == 4) return drop_root(page, op);
  drop_range(maps & kBase, 12 + 9 * level, maps >> kSpaceShift & 0xf, op);
}

// The spaces of a top-level table; supervisor code that others share stays, as they have tables of their own.
void Mmu::drop_root(u64 page, const Op* op) {
  const u64 address = memory_.address_of(page << 12);
  if ((space_->cr3 & kAddress & a20_mask_) == address) return flush(op);
  for (unsigned i = 0; i < kSpaces; ++i) {
    Space& space = spaces_[i];
    if ((space.cr3 & kAddress & a20_mask_) != address) continue;
    forget(space);
    space.cr3 = ~0ull;
  }
}

void Mmu::forget(Space& space) {
  for (unsigned v = 0; v < 3; ++v)
    if (std::exchange(space.used[v], false)) space.views[v] = {};
  flush(space.user, nullptr);
  space.kernel = nullptr;
}

// What came through one entry of a table page.
void Mmu::drop_entry(u64 page, unsigned index, const Op* op) {
  const u64 maps = maps_[page];
  const unsigned level = maps & kLevel, shift = 12 + 9 * (level - 1);
  if (level == 0) return;
  if (maps & kSeveral) return flush(op);
  u64 linear = (maps & kBase) + (static_cast<u64>(index) << shift);
  if (level == 4) {
    linear = static_cast<u64>(static_cast<i64>(linear << 16) >> 16);
    for (unsigned i = 0; i < kSpaces; ++i)
      for (const KernelView::Root& root : kernels_[i].roots)
        if (root.index == index) {
          flush(kernels_[i], op);
          kernels_[i].roots.clear();
          break;
        }
  }
  drop_range(linear, shift, maps >> kSpaceShift & 0xf, op);
}

void Mmu::drop_writes(u64 page) {
  const u64 host = reinterpret_cast<u64>(host_of_page(page));
  for (unsigned i = 0; i < kSpaces; ++i)
    for (unsigned v = 0; v < 3; ++v) {
      if (!spaces_[i].used[v]) continue;
      for (TlbEntry& entry : spaces_[i].views[v].write)
        if (entry.tag + entry.addend == host) entry = {};
    }
  flags_[page] &= static_cast<u8>(~kWritable);
}

void Mmu::mark_code(u64 page) {
  if (flags_[page] & kCode) return;
  flags_[page] |= kCode;
  if (flags_[page] & kWritable) drop_writes(page);
}

void Mmu::mark_table(u64 address, unsigned level, u64 linear, const Space& space) {
  const u64 page = page_of(address);
  stores_[page] = 0;
  if (!(flags_[page] & kTable)) {
    flags_[page] |= kTable;
    maps_[page] = 0;
    if (flags_[page] & kWritable) drop_writes(page);
  }
  const u64 base = level == 4 ? 0 : linear >> (12 + 9 * level) << (12 + 9 * level);
  u64& maps = maps_[page];
  if ((maps & kLevel) == 0) maps = base | level;
  else if ((maps & kBase) != base || (maps & kLevel) != level) maps |= kSeveral;
  maps |= 1ull << (kSpaceShift + (&space - spaces_.get()));
  if (!(cpu_.sys.efer & kEferLma)) maps |= kSeveral;
}

void Mmu::table_stored(u64 page, u64 offset, unsigned size, const void* in, const Op* op) {
  const u8* const table = host_of_page(page);
  const bool everything_counts = !(cpu_.sys.efer & kEferLma);  // entries without A, or of four bytes
  for (u64 at = align_down(offset, 8); at < offset + size; at += 8) {
    u64 old, entry;
    std::memcpy(&old, table + at, 8);
    u8 bytes[8];
    std::memcpy(bytes, &old, 8);
    const u64 first = std::max(at, offset), last = std::min(at + 8, offset + size);
    std::memcpy(bytes + (first - at), static_cast<const u8*>(in) + (first - offset), last - first);
    std::memcpy(&entry, bytes, 8);
    if (entry == old) continue;
    if (!everything_counts && (old & (kPresent | kAccessed)) != (kPresent | kAccessed)) continue;
    drop_entry(page, static_cast<unsigned>(at / 8), op);
  }
  if (++stores_[page] >= kUnmarkAfter) drop_table(page, op);
}

// ---- walking --------------------------------------------------------------------------------------------------

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
  u64 table = lma ? sys.cr3 & kAddress : wide ? sys.cr3 & 0xffff'ffe0 : sys.cr3 & 0xffff'f000;
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
    if (!(entry & kPresent)) return false;
    const bool large = level > 1 && (entry & kLarge) && !pointer && (wide ? level <= 3 : (sys.cr4 & kCr4Pse) != 0);
    u64 reserved = 0;
    if (wide) {
      reserved = kReservedHigh | (nxe ? 0 : kNoExecute) | (lma ? 0 : 0x7ff0'0000'0000'0000);
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
      const u64 base = wide ? entry & kAddress & ~inside
                            : large ? (entry & 0xffc0'0000) | (entry >> 13 & 0xff) << 32 : entry & 0xffff'f000;
      out.physical = base | (linear & inside);
      break;
    }
    table = entry & (wide ? kAddress : 0xffff'f000);
  }
  if (!permitted(access, view, user_page, writable, no_execute)) {
    out.error |= 1;
    return false;
  }
  for (unsigned i = 0; i < count; ++i) {
    const Step& step = steps[i];
    const bool pointer = wide && !lma && step.level == 3;
    const u64 wanted = step.entry | kAccessed | (access == Access::write && i + 1 == count ? kDirty : 0);
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

// ---- access ---------------------------------------------------------------------------------------------------

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
