// What a local APIC remembers (Intel SDM vol. 3A, chapter 11). Defaults: after power-on, software-disabled.
#pragma once

#include "state/codec.hpp"

namespace stasis {

struct LocalApicState {
  u32 id = 0;
  u64 base = 0xfee0'0800;  // IA32_APIC_BASE
  u8 tpr = 0;
  u8 ldr = 0;              // logical ID of xAPIC mode; that of x2APIC mode follows from the ID
  u32 dfr = 0xffff'ffff;
  u32 svr = 0xff;
  std::array<u32, 8> isr{}, tmr{}, irr{};
  u32 esr = 0;             // as latched by the last write to it
  u32 esr_pending = 0;     // errors since then
  u64 icr = 0;
  u32 lvt_timer = kMasked, lvt_thermal = kMasked, lvt_performance = kMasked;
  u32 lvt_lint0 = kMasked, lvt_lint1 = kMasked, lvt_error = kMasked;
  u32 timer_initial = 0;
  u32 timer_divide = 0;
  bool timer_armed = false;    // counting; a one-shot that expired is not
  u64 timer_origin_ns = 0;     // guest time at which the count was (wrapping) timer_initial
  u64 deadline = 0;            // IA32_TSC_DEADLINE; 0: disarmed
  u64 deadline_ns = 0;         // guest time at which the TSC reaches it
  bool lint0 = false, lint1 = false;  // levels last seen
  bool extint = false;         // an ExtINT message waits for its INTA cycle

  static constexpr u32 kMasked = 1u << 16;
  static constexpr u64 kGlobalEnable = 1u << 11, kX2Apic = 1u << 10, kBootstrap = 1u << 8;
  static constexpr u64 kBaseBits = 0x0000'3fff'ffff'fd00;  // 46 physical address bits, as CPUID says
  static constexpr u32 kSoftwareEnable = 1u << 8;
  static constexpr u32 kTimerBits = 0x7'00ff, kLocalBits = 0x1'07ff, kLintBits = 0x1'e7ff, kErrorBits = 0x1'00ff;
  static constexpr u64 kIcrBits = 0xffff'ffff'000c'cfff;

  static constexpr auto layout() {
    using S = LocalApicState;
    return state::Layout(
        "x86.local_apic", 1, state::field<&S::id>("id"), state::field<&S::base>("base").hex().allow(kBaseBits),
        state::field<&S::tpr>("tpr").hex(), state::field<&S::ldr>("ldr").hex(), state::field<&S::dfr>("dfr").hex(),
        state::field<&S::svr>("svr").hex().allow(0x1ff), state::field<&S::isr>("isr").hex(),
        state::field<&S::tmr>("tmr").hex(), state::field<&S::irr>("irr").hex(),
        state::field<&S::esr>("esr").hex().allow(0xe0), state::field<&S::esr_pending>("esr_pending").hex().allow(0xe0),
        state::field<&S::icr>("icr").hex().allow(kIcrBits),
        state::field<&S::lvt_timer>("lvt_timer").hex().allow(kTimerBits),
        state::field<&S::lvt_thermal>("lvt_thermal").hex().allow(kLocalBits),
        state::field<&S::lvt_performance>("lvt_performance").hex().allow(kLocalBits),
        state::field<&S::lvt_lint0>("lvt_lint0").hex().allow(kLintBits),
        state::field<&S::lvt_lint1>("lvt_lint1").hex().allow(kLintBits),
        state::field<&S::lvt_error>("lvt_error").hex().allow(kErrorBits),
        state::field<&S::timer_initial>("timer_initial"), state::field<&S::timer_divide>("timer_divide").hex().allow(0xb),
        state::field<&S::timer_armed>("timer_armed"),
        state::field<&S::timer_origin_ns>("timer_origin_ns").unit("ns"),
        state::field<&S::deadline>("deadline").unit("TSC ticks"),
        state::field<&S::deadline_ns>("deadline_ns").unit("ns"), state::field<&S::lint0>("lint0").help("level last seen"),
        state::field<&S::lint1>("lint1").help("level last seen"),
        state::field<&S::extint>("extint").help("an ExtINT message waits for its INTA cycle"));
  }
  bool operator==(const LocalApicState&) const = default;
};

}  // namespace stasis
