// Coherence: what is marked, and what a change drops.
#include "cpu/soft/mmu.hpp"

#include <algorithm>

#include "cpu/soft/code_cache.hpp"

namespace stasis::soft {
namespace {

constexpr unsigned kUnmarkAfter = 64;  // slow stores into a table page without a walk through it

}  // namespace

u64 Mmu::next_salt() {
  if (++epoch_ >= 0x7f00) {  // salts use bits 48..62, where canonical addresses have copies of one bit
    epoch_ = 1;
    code_.forget_links();
    std::fill_n(kernel_jumps_.get(), 1ull << kJumpBits, JumpEntry{});
    for (unsigned i = 0; i < kSpaces; ++i) {
      std::fill_n(spaces_[i].user_jumps.get(), 1ull << kJumpBits, JumpEntry{});
      for (ExecView* exec : {&spaces_[i].user, static_cast<ExecView*>(&kernels_[i])}) {
        exec->salt = epoch_++ << 48;
        exec->vouched = {};
      }
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
  if ((space_->cr3 & kTableAddress & a20_mask_) == address) return flush(op);
  for (unsigned i = 0; i < kSpaces; ++i) {
    Space& space = spaces_[i];
    if ((space.cr3 & kTableAddress & a20_mask_) != address) continue;
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

void Mmu::forget_writes() {
  for (unsigned i = 0; i < kSpaces; ++i)
    for (unsigned v = 0; v < 3; ++v)
      if (spaces_[i].used[v]) spaces_[i].views[v].write.fill({});
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
    if (!everything_counts && (old & (kEntryPresent | kEntryAccessed)) != (kEntryPresent | kEntryAccessed)) continue;
    drop_entry(page, static_cast<unsigned>(at / 8), op);
  }
  if (++stores_[page] >= kUnmarkAfter) drop_table(page, op);
}

}  // namespace stasis::soft
