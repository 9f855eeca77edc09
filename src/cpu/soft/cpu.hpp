// The vCPU as tier 0 runs it: registers in the form that handlers like, memory access, faults.
//
// Translation is coherent: the TLB only ever holds what a walk of the page tables would give now. A store
// to a page that holds a used table entry drops what came from it, and CR3, INVLPG, mode and A20 changes drop
// what they must. So a machine restored without its TLB runs exactly as one that kept it.
#pragma once

#include <array>
#include <bit>
#include <cstring>

#include "cpu/soft/flags.hpp"
#include "cpu/soft/op.hpp"
#include "cpu/vcpu_state.hpp"

namespace stasis {
class LocalApic;
struct CpuBoard;
}  // namespace stasis

namespace stasis::soft {

class Mmu;

struct TlbEntry {
  u64 tag = ~0ull;   // linear page address; ~0: empty
  u64 addend = 0;    // host address = linear address + addend
};

inline constexpr unsigned kTlbBits = 10;
inline constexpr u64 kTlbEntries = 1ull << kTlbBits;

// One view per privilege: supervisor, supervisor with EFLAGS.AC (SMAP off), user.
struct TlbView {
  std::array<TlbEntry, kTlbEntries> read;
  std::array<TlbEntry, kTlbEntries> write;  // RAM, dirty already, holding neither decoded code nor used tables
};

struct Loaded {  // returned in two registers
  u64 value;
  bool ok;       // false: leave the handler at once
};

enum Segment : u8 { kEs, kCs, kSs, kDs, kFs, kGs };

// Exceptions (SDM vol. 3A, table 6-1).
enum Vector : u8 { kDe = 0, kDb = 1, kNmi = 2, kBp = 3, kOverflow = 4, kBr = 5, kUd = 6, kNm = 7, kDf8 = 8, kTs = 10,
                   kNp = 11, kSsFault = 12, kGp = 13, kPf14 = 14, kMf = 16, kAcFault = 17, kXm = 19 };

// Why control came back from the handlers to the run loop.
enum class Leave : u8 {
  none,       // the block was finished: rip, retired and everything else are up to date
  fault,      // the instruction at `left_at` raised `fault`; it did not retire
  alone,      // the instruction at `left_at` must be run again by itself (it touches a device); nothing was done
};

struct Fault {
  u8 vector = 0;
  bool has_error = false;
  u32 error = 0;
};

struct Block;

// Where a branch went the last time: valid while `tag` equals target ^ Cpu::salt.
struct JumpEntry {
  u64 tag = ~0ull;
  Block* block = nullptr;
};
inline constexpr unsigned kJumpBits = 13;
inline constexpr u64 jump_index(u64 rip) { return (rip ^ rip >> kJumpBits) & ((1ull << kJumpBits) - 1); }

class Cpu {
 public:
  // ---- registers -------------------------------------------------------------------------------
  alignas(64) u64 r[kSlots] = {};  // general registers, kZeroSlot, kRipSlot
  u16 status = 0x0200;             // see flags.hpp
  u8 cpl = 0;
  bool long_mode = false;          // EFER.LMA and CS.L: 64-bit code
  u64 rflags_rest = 2;             // RFLAGS without the status flags
  u64 segment_base[6] = {};        // hot copies of seg[].base
  SegmentState seg[6], ldtr, tr;
  DescriptorTableState gdtr, idtr;
  u64 rip = 0;                     // valid between blocks; inside one: r[kRipSlot] + op->at
  FpuState fpu;                    // x87, MMX, SSE: the one copy
  // All other architectural state, in the form it is saved in. The members above are the live copies of
  // their namesakes; get()/set() of the engine translate.
  VcpuState sys;

  template <class T>
  T& reg(u8 byte_offset) { return *reinterpret_cast<T*>(reinterpret_cast<u8*>(r) + byte_offset); }
  // Writes with the 64-bit rule: a 32-bit result clears the upper half.
  template <class T>
  void set_reg(u8 byte_offset, T value) {
    if constexpr (sizeof(T) == 4) reg<u64>(byte_offset) = static_cast<u32>(value);
    else reg<T>(byte_offset) = value;
  }
  u64 rflags() const { return rflags_rest | status_to_rflags(status); }
  void set_rflags_raw(u64 value) {  // no checks; who calls ends the block if IF, TF, AC or RF may change
    status = status_from_rflags(value);
    rflags_rest = (value & ~kStatusFlags) | 2;
  }
  u64 rip_of(const Op* op) const { return r[kRipSlot] + op->at; }
  u64 next_rip_of(const Op* op) const { return r[kRipSlot] + op->at + op->length; }

  // ---- memory: linear addresses; T is u8, u16, u32 or u64 ---------------------------------------
  template <class T>
  Loaded read(u64 linear, const Op* op) {
    const TlbEntry& entry = tlb->read[linear >> 12 & (kTlbEntries - 1)];
    if (((linear + (sizeof(T) - 1)) & ~0xfffull) == entry.tag) [[likely]] {
      T value;
      std::memcpy(&value, reinterpret_cast<const void*>(linear + entry.addend), sizeof(T));
      return {value, true};
    }
    return read_slow(linear, sizeof(T), op);
  }
  template <class T>
  bool write(u64 linear, T value, const Op* op) {
    const TlbEntry& entry = tlb->write[linear >> 12 & (kTlbEntries - 1)];
    if (((linear + (sizeof(T) - 1)) & ~0xfffull) == entry.tag) [[likely]] {
      std::memcpy(reinterpret_cast<void*>(linear + entry.addend), &value, sizeof(T));
      return true;
    }
    return write_slow(linear, value, sizeof(T), op);
  }
  // Read-modify-write: the host's bytes when they can be changed in place, else null, and then
  // read_for_write() followed by write() does it (the write cannot fail any more).
  template <class T>
  T* in_place(u64 linear) {
    const TlbEntry& entry = tlb->write[linear >> 12 & (kTlbEntries - 1)];
    return ((linear + (sizeof(T) - 1)) & ~0xfffull) == entry.tag ? reinterpret_cast<T*>(linear + entry.addend) : nullptr;
  }
  Loaded read_slow(u64 linear, unsigned size, const Op* op);
  bool write_slow(u64 linear, u64 value, unsigned size, const Op* op);
  Loaded read_for_write(u64 linear, unsigned size, const Op* op);
  // Any number of bytes up to 512 (FXSAVE, SSE operands); all pages are checked before the first byte is written.
  bool read_bytes(u64 linear, void* out, unsigned size, const Op* op);
  bool write_bytes(u64 linear, const void* in, unsigned size, const Op* op);

  // ---- leaving a block early: return from the handler right after these ---------------------------
  void raise(const Op* op, u8 vector) { leave_fault(op, {vector, false, 0}); }
  void raise(const Op* op, u8 vector, u32 error) { leave_fault(op, {vector, true, error}); }
  void leave_fault(const Op* op, Fault what) {
    fault = what;
    left_at = op;
    leave = Leave::fault;
  }
  void leave_alone(const Op* op) {
    left_at = op;
    leave = Leave::alone;
  }

  // ---- how handlers end ------------------------------------------------------------------------------
  // Bound::goes_on: STASIS_NEXT, or leave_after() when the block must not go on (then return at once).
  // Bound::ends and Bound::alone: set `rip` to the next instruction and return, or STASIS_GO (block.hpp) when
  // nothing changed that the run loop must look at (interrupts, mode, devices).
  //
  // REP (bound as `ends`): `budget` holds what may retire after this block, and the op's own count, 1, is taken
  // off already. So 1 + budget iterations may run, and only one when `alone`. With k iterations done
  //   - finished or budget used up: budget -= k - 1 (k is 0: nothing), rip = the next instruction when finished, else
  //     rip_of(op), and return; interrupts come in between by themselves, as the run loop looks before it goes on;
  //   - an access of iteration k + 1 failed (read(), write() … said no): registers as after k iterations,
  //     budget -= k, and return. That covers faults and leave_alone().
  void leave_after(const Op* op);  // this op retires, the ones after it in its block do not run now

  // Retired instructions before this op of the running block, and guest time then, in ns.
  u64 retired_before(const Op* op) const;
  u64 time_before(const Op* op) const { return retired_before(op) + time_base; }

  // ---- run-loop working set (see engine.cpp) -------------------------------------------------------
  TlbView* tlb = nullptr;
  const Op* next_op = nullptr;  // only without STASIS_THREADED
  const Op* left_at = nullptr;
  Leave leave = Leave::none;
  Fault fault;
  i64 budget = 0;               // instructions that may still retire in this slice, those of the running block taken off
  Block* block = nullptr;       // running
  bool alone = false;           // the op runs by itself: device access is allowed
  JumpEntry* jump = nullptr;    // 1 << kJumpBits of them, at jump_index(rip)
  u64 salt = 0;                 // changes whenever a JumpEntry may have become wrong
  JumpEntry* open_link = nullptr;  // to be filled by the run loop once it knows where `rip` leads
  u64 slice_end = 0;            // retired count when budget is used up
  u64 time_base = 0;            // guest time minus retired
  u64 rf_at = 0;                // RFLAGS.RF counts only while retired equals this
  Op* broken = nullptr;         // see break_after() in mmu.hpp
  Handler broken_fn = nullptr;
  u64 shadow_at = 0;            // sys.shadow counts only while retired equals this
  Mmu* mmu = nullptr;
  LocalApic* apic = nullptr;
  const CpuBoard* board = nullptr;
  alignas(64) u8 scratch[576] = {};  // for handlers that must not have locals whose address escapes
};

// ---- effective addresses: a handler is a template over one of these ---------------------------------
// 64-bit code, no FS/GS, 64-bit address size.
struct FlatAddress {
  static u64 linear(Cpu& cpu, const Op* op) { return cpu.r[op->base] + (cpu.r[op->index] << op->scale) + static_cast<u64>(op->disp); }
  static bool check(Cpu&, const Op*, u64, unsigned, bool) { return true; }
};
// Everything else: address size, segment base, and outside 64-bit mode the segment's limit and rights.
struct AnyAddress {
  static u64 offset(Cpu& cpu, const Op* op) {
    const u64 sum = cpu.r[op->base] + (cpu.r[op->index] << op->scale) + static_cast<u64>(op->disp);
    return op->address_bytes == 8 ? sum : op->address_bytes == 4 ? static_cast<u32>(sum) : static_cast<u16>(sum);
  }
  static u64 linear(Cpu& cpu, const Op* op) {
    const u64 at = offset(cpu, op);
    if (cpu.long_mode) return op->segment >= kFs ? at + cpu.segment_base[op->segment] : at;
    return static_cast<u32>(at + cpu.segment_base[op->segment]);
  }
  // Limit, presence and rights of the segment; false: raised. Always true in 64-bit code (canonical checks
  // are the TLB miss path's).
  static bool check(Cpu& cpu, const Op* op, u64 linear, unsigned size, bool write) {
    return cpu.long_mode || check_segment(cpu, op, offset(cpu, op), size, write) || (static_cast<void>(linear), false);
  }
  static bool check_segment(Cpu& cpu, const Op* op, u64 offset, unsigned size, bool write);
};

// A segmented access whose offset is not the op's own memory operand (stack, string destination): linear
// address by mode; false in `ok`: raised.
struct Linear {
  u64 address;
  bool ok;
};
Linear linear_of(Cpu& cpu, const Op* op, Segment segment, u64 offset, unsigned size, bool write);

}  // namespace stasis::soft
