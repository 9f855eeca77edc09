// The soft engine: the run loop around tier 0.
#pragma once

#include <atomic>
#include <string>

#include "cpu/engine.hpp"
#include "cpu/soft/code_cache.hpp"
#include "cpu/soft/mmu.hpp"
#include "cpu/soft/segments.hpp"
#include "cpu/soft/thunk.hpp"

namespace stasis::soft {

class SoftEngine final : public Engine, private CpuSignals {
 public:
  explicit SoftEngine(const CpuBoard& board);
  ~SoftEngine() override;

  std::string_view name() const override { return "soft"; }
  VcpuState get(u32 vcpu = 0) const override;
  void set(const VcpuState& state, u32 vcpu = 0) override;
  LocalApicState get_apic(u32) const override { return board_.apic.state(); }
  void set_apic(const LocalApicState& state, u32) override { board_.apic.restore(state); }
  void connect(CpuChips chips) override;
  MessageSink& messages() override { return board_.apic; }
  void set_intr(bool level) override { board_.apic.lint0(level); }
  u64 retired() const override { return cpu_.slice_end - static_cast<u64>(cpu_.budget); }
  StopReason run(u64 until_retired) override;
  std::string failure() const override { return failure_; }
  void kick() override { kicked_.store(true, std::memory_order_relaxed); }
  void attention() override { attention_ = true; }
  void set_a20(bool open) override { mmu_.set_a20(open); }
  void memory_written(u64 address, u64 size) override { mmu_.memory_written(address, size); }
  Result<> track_writes(bool on) override;
  Result<> collect_writes(std::span<u64> pages) override;
  // TLB contents agree with the page tables (for tests).
  bool consistent() { return mmu_.consistent(); }

 private:
  static constexpr u64 kQuantum = 100'000;
  static constexpr unsigned kMostFruitless = 100'000;  // rounds in which nothing retires

  // CpuSignals
  void nmi() override { cpu_.sys.nmi_pending = true; }
  void init() override;
  void startup(u8 vector) override;

  void enter_init();
  void take_signals();
  StopReason run_until(u64 until_retired);
  u64 time() const { return cpu_.time_base + retired(); }
  void new_slice(u64 until_retired);
  bool shadowed() const { return cpu_.sys.shadow != InterruptShadow::none && cpu_.shadow_at == retired(); }
  bool stepping() const;
  bool take_event();
  void deliver(const Event& event);
  bool run_blocks();
  bool run_block(Block* block);
  void run_op_alone(const Block& block, const Op& op);
  void run_step();
  Block* look_up();
  Block* decode(u64 linear, u64 physical);
  Block* within_limit(Block* block);
  void fault_at_rip();
  bool instruction_breakpoint();
  void fail_fetch(u64 linear, u64 physical);

  const CpuBoard board_;
  Cpu cpu_;
  ThunkCache thunks_;
  Mmu mmu_;
  CodeCache code_;
  std::string failure_;
  std::atomic<bool> kicked_{false};
  bool attention_ = false;
  bool running_ = false;      // signals wait for the end of the instruction
  bool init_waits_ = false;
  int startup_waits_ = -1;
};

}  // namespace stasis::soft
