// Address translation and memory access: page walks, the coherent TLB, device access.
//
// Each page of RAM has flags. A page that holds a table entry used by a walk, or decoded code, never enters a
// write TLB; stores to it come here and drop exactly what was derived from the bytes they change. Only
// entries with P and A set can have been used (walks set A), so filling in fresh entries drops nothing.
//
// Where writes are followed (GuestMemory::track_writes), a page is marked when it enters a write TLB, and by every store
// that goes past one; forget_writes() empties them, and the next store to each page comes here again. So a store
// costs nothing more, and what the guest sees does not change.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "cpu/soft/block.hpp"
#include "memory/guest_memory.hpp"

namespace stasis::soft {

class CodeCache;

enum class Access : u8 { read, write, fetch };
enum View : u8 { kSupervisor, kSupervisorAc, kUser };

// Control register and EFER bits.
inline constexpr u64 kCr0Pe = 1, kCr0Mp = 2, kCr0Em = 4, kCr0Ts = 8, kCr0Et = 0x10, kCr0Ne = 0x20, kCr0Wp = 0x1'0000,
                     kCr0Am = 0x4'0000, kCr0Nw = 0x2000'0000, kCr0Cd = 0x4000'0000, kCr0Pg = 0x8000'0000;
inline constexpr u64 kCr4Vme = 1, kCr4Pvi = 2, kCr4Tsd = 4, kCr4De = 8, kCr4Pse = 0x10, kCr4Pae = 0x20, kCr4Mce = 0x40,
                     kCr4Pge = 0x80, kCr4Pce = 0x100, kCr4Osfxsr = 0x200, kCr4Osxmmexcpt = 0x400, kCr4Umip = 0x800,
                     kCr4Smep = 0x10'0000, kCr4Smap = 0x20'0000;
inline constexpr u64 kEferSce = 1, kEferLme = 0x100, kEferLma = 0x400, kEferNxe = 0x800;
inline constexpr unsigned kPhysicalBits = 46;  // the most; the CPU contract says how many the guest has

// Bits of table entries.
inline constexpr u64 kEntryPresent = 1, kEntryAccessed = 0x20, kTableAddress = ((1ull << kPhysicalBits) - 1) & ~0xfffull;

constexpr bool is_canonical(u64 linear) { return static_cast<u64>(static_cast<i64>(linear << 16) >> 16) == linear; }

class Mmu {
 public:
  Mmu(Cpu& cpu, GuestMemory& memory, CodeCache& code);
  Mmu(const Mmu&) = delete;
  Mmu& operator=(const Mmu&) = delete;

  // ---- what was changed -------------------------------------------------------------------------------
  void reset();          // forgets everything: the state was set from outside
  void paging_changed(); // CR0, CR4, EFER, APIC base: anything but CR3
  void cr3_changed();
  void select();         // CPL, AC, CS, SS.B changed: chooses the view, the jump table and the mode
  void select_data();    // AC changed
  void set_a20(bool open);
  void memory_written(u64 physical, u64 size);
  void forget_writes();  // the next store to any page marks it

  // ---- access, `view` says as who; failing ones raise on `op` (which may be null: the caller looks at cpu.leave) ----
  Loaded load(u64 linear, unsigned size, View view, const Op* op);
  bool store(u64 linear, u64 value, unsigned size, View view, const Op* op);
  bool load_bytes(u64 linear, void* out, unsigned size, View view, const Op* op);
  bool store_bytes(u64 linear, const void* in, unsigned size, View view, const Op* op);
  // Both pages may be written by `view`; nothing happens to them.
  bool probe_write(u64 linear, unsigned size, View view, const Op* op);
  View view() const { return view_; }
  View view_of(unsigned cpl) const { return cpl == 3 ? kUser : kSupervisor; }

  // ---- code -----------------------------------------------------------------------------------------------
  bool fetch(u64 linear, u64& physical);  // false: raised, without an op
  void mark_code(u64 page);               // RAM page number
  void unmark_code(u64 page) { flags_[page] &= static_cast<u8>(~kCode); }
  void code_dropped(const Op* op);        // jump entries may be wrong now
  u32 mode() const { return mode_; }      // of the code that runs: see select()
  unsigned physical_bits() const { return physical_bits_; }
  GuestMemory& memory() { return memory_; }
  u64 page_of(u64 physical) const {       // RAM page number, kNotRam
    const u64 offset = memory_.offset_of(physical);
    return offset == GuestMemory::kNotRam ? offset : offset >> 12;
  }
  u8* host_of_page(u64 page) const { return memory_.host() + (page << 12); }
  // TLB contents against fresh walks; empty when all agree (for tests).
  bool consistent();

 private:
  static constexpr u8 kCode = 1, kTable = 2, kWritable = 4;  // kWritable: some write TLB may hold the page
  // What a table page maps, as far as walks know: linear base, level (0: nothing yet), the spaces that walked
  // through it as bits from kSpaceShift, and whether it was met in several places.
  static constexpr u64 kLevel = 7, kSpaceShift = 4, kSeveral = 0x100, kBase = ~0xfffull;
  static constexpr unsigned kSpaces = 4, kExecEntries = 512;
  static constexpr unsigned filter_bit(u64 linear) { return static_cast<unsigned>((linear >> 12 ^ linear >> 24) & 4095); }
  struct ExecView {
    std::array<TlbEntry, kExecEntries> entries;  // addend: physical page - linear page
    std::array<u64, 64> filter{};                // hashed linear pages that `salt` vouches for
    std::vector<u64> pages;                      // these pages, some of them twice
    u64 pages_limit = 2048;
    std::array<u64, kExecEntries> vouched{};     // the salt for which an entry's page was put there
    u64 salt = 0;
    bool used = false;
  };
  // Supervisor code. Spaces whose top-level tables agree in the entries that it came through share one.
  struct KernelView : ExecView {
    struct Root {
      unsigned index;
      u64 entry;
    };
    std::vector<Root> roots;
  };
  struct Space {  // translations under one CR3
    u64 cr3 = 0;
    u64 last_used = 0;
    bool used[3] = {};
    TlbView views[3];
    ExecView user;
    std::unique_ptr<JumpEntry[]> user_jumps;
    KernelView* kernel = nullptr;
  };
  struct Walk {
    u64 physical = 0;
    u32 error = 0;
    bool cacheable = true;
  };
  struct Step {
    u64 address, entry;
    unsigned level, bytes;
  };

  bool map(u64 linear, Access access, View view, const Op* op, u64& physical);
  bool walk(u64 linear, Access access, View view, Walk& out);
  bool walk_tables(u64 linear, Access access, View view, Walk& out);
  bool permitted(Access access, View view, bool user_page, bool writable, bool no_execute) const;
  bool read_entry(u64 address, unsigned bytes, u64& entry);
  void write_entry(const Step& step, u64 entry);
  void mark_table(u64 address, unsigned level, u64 linear, const Space& space);
  void drop_writes(u64 page);
  void mark_written(u64 page) {
    if (memory_.unmarked(page)) memory_.mark_written(page << 12, 1);
  }
  void fill(u64 linear, u64 physical, Access access, View view);
  bool is_device(u64 physical) const;
  u64 read_device(u64 physical, unsigned size);
  void write_device(u64 physical, unsigned size, u64 value);
  void store_ram(u64 physical, const void* in, unsigned size, const Op* op);
  void table_stored(u64 page, u64 offset, unsigned size, const void* in, const Op* op);
  void drop_table(u64 page, const Op* op);
  void drop_root(u64 page, const Op* op);
  void forget(Space& space);
  void drop_entry(u64 page, unsigned index, const Op* op);
  void drop_range(u64 linear, unsigned shift, u64 spaces, const Op* op);
  void flush(const Op* op);
  void bump(ExecView& exec, const Op* op);
  void flush(ExecView& exec, const Op* op);
  void drop_range(ExecView& exec, u64 linear, unsigned shift, const Op* op);
  ExecView& running_code() { return cpu_.cpl == 3 ? space_->user : *space_->kernel; }
  void join_kernel(Space& space, KernelView* preferred);
  bool agrees(const KernelView& kernel, u64 cr3);
  void add_root(u64 linear);
  u64 next_salt();
  u64 wrap(u64 linear) const { return cpu_.long_mode ? linear : static_cast<u32>(linear); }

  Cpu& cpu_;
  GuestMemory& memory_;
  CodeCache& code_;
  View view_ = kSupervisor;
  u32 mode_ = 0;
  const Op* op_ = nullptr;  // whose access is being walked for
  u64 a20_mask_ = ~0ull;
  unsigned physical_bits_ = kPhysicalBits;
  u64 epoch_ = 0, clock_ = 0;
  std::unique_ptr<Space[]> spaces_;
  std::unique_ptr<KernelView[]> kernels_;
  Space* space_;
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<u8[], Free> flags_, stores_;     // per RAM page; lazily zero
  std::unique_ptr<u64[], Free> maps_;              // of a table page: see kLevel
  struct Context {                                 // what jump entries of a privilege were made for
    u32 mode = ~0u;
    u64 base = 0;
    u32 limit = 0;
    bool operator==(const Context&) const = default;
  } context_[2];
  std::unique_ptr<JumpEntry[]> kernel_jumps_;
};

// Ends the running block after `op`, which is one of its ops: the next one must be looked up again.
void break_after(Cpu& cpu, const Op* op);
void mend_break(Cpu& cpu);  // the run loop's half: puts the patched op back

}  // namespace stasis::soft
