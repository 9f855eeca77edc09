// Address spaces, privilege views and modes: which translations and which decoded code are in force.
#include "cpu/soft/mmu.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "cpu/engine.hpp"
#include "cpu/soft/code_cache.hpp"

namespace stasis::soft {
namespace {

template <class T>
T* lazy_array(u64 count) {
  T* array = static_cast<T*>(std::calloc(count, sizeof(T)));
  STASIS_ASSERT(array != nullptr);
  return array;
}

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
  physical_bits_ = std::min(kPhysicalBits, stasis::physical_bits(cpu_.board->contract));
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
    if (!read_entry((cr3 & kTableAddress) + root.index * 8, 8, entry) || entry != root.entry) return false;
  }
  return true;
}

void Mmu::join_kernel(Space& space, KernelView* preferred) {
  for (KernelView* kernel : {preferred, space.kernel}) {
    if (!kernel || !agrees(*kernel, space.cr3)) continue;
    if (!kernel->roots.empty()) mark_table((space.cr3 & kTableAddress) & a20_mask_, 4, 0, space);
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
  read_entry((space_->cr3 & kTableAddress) + index * 8, 8, entry);
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

}  // namespace stasis::soft
