// The run loop: slices of instructions, events between them, blocks within them.
//
// A slice ends where the next alarm is due, where the caller wants to stop, or after a quantum. What makes an
// interrupt deliverable happens at slice ends, in ops that run alone and in flag changes, and each of these
// comes back here; so looking more often changes nothing, and where slices and blocks end does not matter.
#include "cpu/soft/engine.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.hpp"

namespace stasis::soft {

SoftEngine::SoftEngine(const CpuBoard& board) : board_(board), mmu_(cpu_, board.memory, code_), code_(cpu_, mmu_, thunks_) {
  cpu_.mmu = &mmu_;
  cpu_.apic = &board.apic;
  cpu_.board = &board_;
  board.apic.connect(this);
  set(VcpuState{});
}

SoftEngine::~SoftEngine() { board_.apic.connect(nullptr); }

void SoftEngine::connect(CpuChips chips) {
  board_.apic.connect_pic(std::move(chips.pic_acknowledge));
  board_.apic.connect_eoi(std::move(chips.eoi));
}

// ---- state ------------------------------------------------------------------------------------------------------

VcpuState SoftEngine::get(u32) const {
  VcpuState s = cpu_.sys;
  std::copy_n(cpu_.r, 16, s.gpr.begin());
  s.rip = cpu_.rip;
  s.retired = retired();
  s.rflags = cpu_.rflags();
  if (cpu_.rf_at != s.retired) s.rflags &= ~kRf;
  if (cpu_.shadow_at != s.retired) s.shadow = InterruptShadow::none;
  SegmentState* const segments[6] = {&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs};
  for (unsigned i = 0; i < 6; ++i) *segments[i] = cpu_.seg[i];
  s.ldtr = cpu_.ldtr, s.tr = cpu_.tr;
  s.gdtr = cpu_.gdtr, s.idtr = cpu_.idtr;
  s.cpl = cpu_.cpl;
  s.fpu = cpu_.fpu;
  return s;
}

void SoftEngine::set(const VcpuState& s, u32) {
  cpu_.sys = s;
  std::copy_n(s.gpr.begin(), 16, cpu_.r);
  cpu_.rip = s.rip;
  cpu_.set_rflags_raw(s.rflags);
  const SegmentState* const segments[6] = {&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs};
  for (unsigned i = 0; i < 6; ++i) {
    cpu_.seg[i] = *segments[i];
    cpu_.segment_base[i] = segments[i]->base;
  }
  cpu_.ldtr = s.ldtr, cpu_.tr = s.tr;
  cpu_.gdtr = s.gdtr, cpu_.idtr = s.idtr;
  cpu_.cpl = s.cpl;
  cpu_.fpu = s.fpu;
  cpu_.slice_end = s.retired;
  cpu_.budget = 0;
  cpu_.rf_at = cpu_.shadow_at = s.retired;
  cpu_.leave = Leave::none;
  cpu_.open_link = nullptr;
  cpu_.block = nullptr;
  attention_ = false;
  failure_.clear();
  mmu_.reset();
}

void SoftEngine::init() {
  init_waits_ = true;
  if (!running_) take_signals();
}

void SoftEngine::startup(u8 vector) {
  startup_waits_ = vector;
  if (!running_) take_signals();
}

void SoftEngine::take_signals() {
  if (std::exchange(init_waits_, false)) enter_init();
  const int vector = std::exchange(startup_waits_, -1);
  if (vector < 0 || cpu_.sys.activity != Activity::wait_for_sipi) return;
  cpu_.sys.activity = Activity::running;
  SegmentState cs = cpu_.seg[kCs];
  cs.selector = static_cast<u16>(vector << 8);
  cs.base = static_cast<u64>(vector) << 12;
  cpu_.rip = 0;
  set_segment(cpu_, kCs, cs);
}

void SoftEngine::enter_init() {
  VcpuState s = get();
  VcpuState fresh{};  // SDM vol. 3A, table 10-1, column INIT: these survive
  fresh.fpu = s.fpu, fresh.mtrr = s.mtrr, fresh.retired = s.retired;
  fresh.tsc_offset = s.tsc_offset, fresh.tsc_adjust = s.tsc_adjust, fresh.misc_enable = s.misc_enable, fresh.pat = s.pat;
  fresh.cr0 = 0x10 | (s.cr0 & (kCr0Cd | kCr0Nw));
  if (!(board_.apic.state().base & LocalApicState::kBootstrap)) fresh.activity = Activity::wait_for_sipi;
  const bool attention = attention_;
  set(fresh);
  attention_ = attention;
}

Result<> SoftEngine::track_writes(bool on) {
  board_.memory.track_writes(on);
  mmu_.forget_writes();
  return {};
}

Result<> SoftEngine::collect_writes(std::span<u64> pages) {
  mmu_.forget_writes();
  board_.memory.take_written(pages);
  return {};
}

// ---- events -----------------------------------------------------------------------------------------------------

void SoftEngine::deliver(const Event& event) {
  if (cpu_.rf_at != retired()) cpu_.rflags_rest &= ~kRf;
  cpu_.alone = true;  // a frame in device memory reaches the device
  const Delivered delivered = deliver_through(cpu_, event, cpu_.rip);
  cpu_.alone = false;
  cpu_.sys.shadow = InterruptShadow::none;
  cpu_.sys.activity = delivered == Delivered::yes ? Activity::running : Activity::shutdown;
}

namespace {

Event event_of(const PendingEventState& event) {
  const bool by_vector = event.type == EventType::by_vector;
  const auto kind = event.type == EventType::exception || (by_vector && event.vector < 32) ? Event::Kind::exception : Event::Kind::interrupt;
  return {kind, event.vector, event.has_error_code, event.error_code};
}

// What a raised exception leaves in CR2 or DR6 when it goes on its way. In a #DB's payload the bits that DR6 has set
// when idle are inverted (Linux Documentation/virt/kvm/api.rst, KVM_CAP_EXCEPTION_PAYLOAD).
void leave_payload(VcpuState& sys, const PendingEventState& event) {
  constexpr u64 kTraps = 0xf, kIdle = 0xffff'0ff0, kNever = 0x1000, kGeneralDetect = 0x2000;
  if (event.vector == kDb) sys.dr7 &= ~kGeneralDetect;
  if (!event.has_payload) return;
  if (event.vector == kPf14) sys.cr2 = event.payload;
  else if (event.vector == kDb) sys.dr6 = (((sys.dr6 & ~kTraps) | kIdle | event.payload) ^ (event.payload & kIdle)) & ~kNever;
}

}  // namespace

// True: an event was delivered, or the processor rests.
bool SoftEngine::take_event() {
  VcpuState& sys = cpu_.sys;
  if (sys.pending.valid) {
    const PendingEventState pending = std::exchange(sys.pending, {});
    if (pending.type == EventType::nmi) sys.nmi_blocked = true;
    deliver(event_of(pending));
    return true;
  }
  if (sys.activity == Activity::wait_for_sipi) return false;
  if (sys.exception.valid) {
    const PendingEventState raised = std::exchange(sys.exception, {});
    leave_payload(sys, raised);
    deliver(event_of(raised));
    return true;
  }
  if (sys.nmi_pending && !sys.nmi_blocked && !shadowed()) {
    sys.nmi_pending = false;
    sys.nmi_blocked = true;
    deliver({Event::Kind::interrupt, kNmi, false, 0});
    return true;
  }
  if ((cpu_.rflags_rest & kIf) && board_.apic.deliverable() && !shadowed()) {
    deliver({Event::Kind::interrupt, board_.apic.acknowledge(), false, 0});
    return true;
  }
  return false;
}

bool SoftEngine::stepping() const {
  return (cpu_.rflags_rest & kTf) || shadowed() || (cpu_.sys.dr7 & 0xff);
}

// ---- running ----------------------------------------------------------------------------------------------------

void SoftEngine::new_slice(u64 until_retired) {
  const u64 now = retired();
  board_.clock.advance_to(time());
  if (board_.clock.next_alarm() <= time()) board_.clock.advance_to(time());  // set in the past by one that fired
  u64 count = std::min(until_retired - now, kQuantum);
  count = std::min(count, board_.clock.next_alarm() - board_.clock.now());
  cpu_.slice_end = now + count;
  cpu_.budget = static_cast<i64>(count);
}

StopReason SoftEngine::run(u64 until_retired) {
  cpu_.time_base = board_.clock.now() - retired();
  running_ = true;
  const StopReason reason = run_until(until_retired);
  running_ = false;
  return reason;
}

// A guest may take exceptions without end and execute nothing (a page fault handler that is not there, on a stack of
// its own). No guest time passes then, so who runs it is asked now and then whether to go on.
StopReason SoftEngine::run_until(u64 until_retired) {
  u64 seen = retired();
  for (unsigned fruitless = 0;; ++fruitless) {
    if (retired() != seen) seen = retired(), fruitless = 0;
    if (fruitless > kMostFruitless) return StopReason::attention;
    board_.clock.advance_to(time());
    if (init_waits_ || startup_waits_ >= 0) take_signals();
    if (std::exchange(attention_, false)) return StopReason::attention;
    if (kicked_.load(std::memory_order_relaxed) && kicked_.exchange(false)) return StopReason::attention;
    if (!failure_.empty()) return StopReason::failed;
    if (cpu_.sys.activity == Activity::shutdown) return StopReason::shutdown;
    if (retired() >= until_retired) return StopReason::count;
    if (take_event()) continue;
    if (cpu_.sys.activity != Activity::running) return StopReason::idle;
    new_slice(until_retired);
    while (cpu_.budget > 0 && run_blocks()) {
    }
  }
}

// One round of blocks. False: the outer loop must look at something.
bool SoftEngine::run_blocks() {
  mend_break(cpu_);
  code_.collect();
  if (stepping()) {
    run_step();
    return false;
  }
  Block* block = look_up();
  if (!block) return false;
  if (block->alone) {
    run_op_alone(*block, block->ops[0]);
    return false;
  }
  if (cpu_.budget < block->count) block = code_.cut(*block, static_cast<unsigned>(cpu_.budget));
  return run_block(block) && cpu_.sys.activity == Activity::running && !cpu_.sys.nmi_pending && failure_.empty() &&
         !((cpu_.rflags_rest & kIf) && board_.apic.deliverable());
}

// False: it was left early, by a fault or to run an op alone.
bool SoftEngine::run_block(Block* block) {
  cpu_.budget -= block->count;
  cpu_.block = block;
  cpu_.r[kRipSlot] = cpu_.rip;
#ifdef STASIS_THREADED
  block->ops[0].fn(cpu_, block->ops);
#else
  for (const Op* op = block->ops; op; op = cpu_.next_op) {
    cpu_.next_op = nullptr;
    op->fn(cpu_, op);
  }
#endif
  if (cpu_.leave == Leave::none) [[likely]] return true;
  const Op* const op = cpu_.left_at;
  cpu_.budget += cpu_.block->count - op->position;
  cpu_.rip = cpu_.rip_of(op);
  cpu_.open_link = nullptr;
  if (std::exchange(cpu_.leave, Leave::none) == Leave::alone) {
    mend_break(cpu_);
    run_op_alone(*cpu_.block, *op);
  } else {
    fault_at_rip();
  }
  return false;
}

void SoftEngine::fault_at_rip() {
  board_.clock.advance_to(time());
  deliver({Event::Kind::exception, cpu_.fault.vector, cpu_.fault.has_error, cpu_.fault.error});
}

// Device access happens here only: with the clock where the instruction starts.
void SoftEngine::run_op_alone(const Block& block, const Op& op) {
  board_.clock.advance_to(time());
  cpu_.rip -= op.at;  // the block's first instruction
  Block* const single = code_.single(block, op);
  cpu_.alone = true;
  run_block(single);
  cpu_.alone = false;
  cpu_.slice_end = retired();  // the access may have set alarms: a new slice
  cpu_.budget = 0;
}

// One instruction, with what hangs on instruction boundaries: breakpoints and the single-step trap.
void SoftEngine::run_step() {
  const bool quiet = shadowed() && cpu_.sys.shadow == InterruptShadow::mov_ss;
  if (instruction_breakpoint()) return;
  Block* block = look_up();
  if (!block) return;
  const bool trap = cpu_.rflags_rest & kTf;
  const u64 before = retired();
  if (block->alone) {
    run_op_alone(*block, block->ops[0]);
  } else {
    cpu_.budget = 1;  // one iteration of a REP
    cpu_.slice_end = before + 1;
    run_block(code_.cut(*block, 1));
  }
  cpu_.open_link = nullptr;
  cpu_.slice_end = retired();
  cpu_.budget = 0;
  if (retired() == before || !trap || quiet || !(cpu_.rflags_rest & kTf)) return;
  cpu_.sys.dr6 |= 0x4000;  // BS
  deliver({Event::Kind::exception, kDb, false, 0});
}

bool SoftEngine::instruction_breakpoint() {
  const VcpuState& sys = cpu_.sys;
  if (!(sys.dr7 & 0xff)) return false;
  if ((cpu_.rflags_rest & kRf) && cpu_.rf_at == retired()) return false;
  const u64 linear = cpu_.long_mode ? cpu_.rip : static_cast<u32>(cpu_.rip + cpu_.seg[kCs].base);
  u64 hit = 0;
  for (unsigned i = 0; i < 4; ++i)
    if ((sys.dr7 >> (2 * i) & 3) && !(sys.dr7 >> (16 + 4 * i) & 3) && sys.dr[i] == linear) hit |= 1u << i;
  if (!hit) return false;
  cpu_.sys.dr6 = (sys.dr6 & ~0xfull) | hit;
  cpu_.fault = {kDb, false, 0};
  fault_at_rip();
  return true;
}

// ---- finding code -----------------------------------------------------------------------------------------------

// The block at rip. Null: a fault was delivered, or the engine failed.
Block* SoftEngine::look_up() {
  JumpEntry* const link = std::exchange(cpu_.open_link, nullptr);
  const u64 rip = cpu_.rip, tag = rip ^ cpu_.salt;
  JumpEntry& entry = cpu_.jump[jump_index(rip)];
  if (entry.tag == tag) {
    if (link) *link = entry;
    return entry.block;
  }
  const u64 linear = cpu_.long_mode ? rip : static_cast<u32>(rip + cpu_.seg[kCs].base);
  u64 physical;
  cpu_.leave = Leave::none;
  if (!cpu_.long_mode && rip > cpu_.seg[kCs].limit) cpu_.raise(nullptr, kGp, 0);
  else if (mmu_.fetch(linear, physical)) {
    if (mmu_.page_of(physical) == GuestMemory::kNotRam) return fail_fetch(linear, physical), nullptr;
    Block* block = code_.find(physical, mmu_.mode());
    if (!block || block->crosses) block = decode(linear, physical);
    if (block) {
      Block* const usable = cpu_.long_mode ? block : within_limit(block);
      const u64 salt_now = rip ^ cpu_.salt;
      if (usable == block && !block->alone) {
        entry = {salt_now, block};
        if (link && salt_now == tag) *link = entry;
      }
      return usable;
    }
    if (!failure_.empty()) return nullptr;
  }
  cpu_.leave = Leave::none;
  fault_at_rip();
  return nullptr;
}

// Null: the second page raised, or is no RAM.
Block* SoftEngine::decode(u64 linear, u64 physical) {
  Block* block = code_.find(physical, mmu_.mode());
  if (!block) block = code_.decode(physical, CodeCache::kUnknown, mmu_.mode());
  if (block && !block->crosses) return block;
  const u64 next = align_down(linear, kPageSize) + kPageSize;
  u64 second;
  if (!mmu_.fetch(cpu_.long_mode ? next : static_cast<u32>(next), second)) return nullptr;
  if (mmu_.page_of(second) == GuestMemory::kNotRam) return fail_fetch(next, second), nullptr;
  if (block && block->second_page == second) return block;
  if (block) {
    code_.drop(block);
    mmu_.code_dropped(nullptr);
  }
  return code_.decode(physical, second, mmu_.mode());
}

// Outside 64-bit mode: as much of a block as CS's limit covers; null: not even one instruction.
Block* SoftEngine::within_limit(Block* block) {
  const u64 limit = cpu_.seg[kCs].limit;
  if (cpu_.rip + block->bytes - 1 <= limit) return block;
  unsigned count = 0;
  while (count < block->count && cpu_.rip + block->ops[count].at + block->ops[count].length - 1 <= limit) ++count;
  if (count == 0) {
    cpu_.fault = {kGp, true, 0};
    fault_at_rip();
    return nullptr;
  }
  return code_.cut(*block, count);
}

void SoftEngine::fail_fetch(u64 linear, u64 physical) {
  failure_ = fmt::format("the guest runs code at {:#x} (physical {:#x}), which is not RAM", linear, physical);
}

}  // namespace stasis::soft

namespace stasis {

std::unique_ptr<Engine> make_soft_engine(const CpuBoard& board) { return std::make_unique<soft::SoftEngine>(board); }

}  // namespace stasis
