// The in-kernel local APIC as our record of it (KVM_GET_LAPIC: the register page; Intel SDM vol. 3A, table 11-1).
#include "cpu/kvm/kvm_abi.hpp"

#include <cstring>

#include "cpu/kvm/vcpu.hpp"
#include "cpu/local_apic.hpp"

namespace stasis::kvm {
namespace {

using State = LocalApicState;
constexpr u32 kDeadlineMsr = 0x6e0;
constexpr u32 kTimerModes = 3;

enum Offset : unsigned {
  kId = 0x20, kTpr = 0x80, kLdr = 0xd0, kDfr = 0xe0, kSvr = 0xf0, kIsr = 0x100, kTmr = 0x180, kIrr = 0x200, kEsr = 0x280,
  kIcr = 0x300, kIcrHigh = 0x310, kLvtTimer = 0x320, kLvtThermal = 0x330, kLvtPerformance = 0x340, kLvtLint0 = 0x350,
  kLvtLint1 = 0x360, kLvtError = 0x370, kInitial = 0x380, kCurrent = 0x390, kDivide = 0x3e0,
};

u32 get(const kvm_lapic_state& page, unsigned at) {
  u32 value;
  std::memcpy(&value, page.regs + at, 4);
  return value;
}
void put(kvm_lapic_state& page, unsigned at, u32 value) { std::memcpy(page.regs + at, &value, 4); }

unsigned timer_mode(const State& s) { return s.lvt_timer >> 17 & kTimerModes; }
u64 divider(const State& s) { return u64{1} << ((((s.timer_divide >> 1 & 4) | (s.timer_divide & 3)) + 1) & 7); }

// The count that is left at `now`. An expired one-shot has none.
u32 count_left(const State& s, u64 now) {
  if (!s.timer_armed || s.timer_initial == 0) return 0;
  const u64 ticks = (now - s.timer_origin_ns) / divider(s);
  if (timer_mode(s) == 1) return static_cast<u32>(s.timer_initial - ticks % s.timer_initial);
  return ticks >= s.timer_initial ? 1 : static_cast<u32>(s.timer_initial - ticks);  // 1: it expires at once
}

// Hardware has nothing between a timer's expiry and IRR. KVM has: what expired after settle()'s entry is not in IRR yet,
// and once the count is 0 nothing tells it from what the guest has had long ago.
bool expired_since(const State& s, u32 left_then, u32 left_now, u64 elapsed_ns) {
  if (s.timer_initial == 0 || left_then == 0) return false;
  if (timer_mode(s) == 0) return left_now == 0;
  return timer_mode(s) == 1 && (left_now > left_then || elapsed_ns >= s.timer_initial * divider(s));
}

void request_timer_interrupt(State& s) {
  const unsigned vector = s.lvt_timer & 0xff;
  if (s.lvt_timer & State::kMasked || !(s.svr & State::kSoftwareEnable) || vector < 16) return;
  s.irr[vector / 32] |= 1u << vector % 32;
  s.tmr[vector / 32] &= ~(1u << vector % 32);
}

}  // namespace

Result<u32> Vcpu::timer_left() const {
  kvm_lapic_state page{};
  STASIS_TRY(call("KVM_GET_LAPIC", KVM_GET_LAPIC, &page));
  return get(page, kCurrent);
}

Result<> Vcpu::read_apic(State& out, const Instant& at) {
  kvm_lapic_state page{};
  STASIS_TRY(call("KVM_GET_LAPIC", KVM_GET_LAPIC, &page));
  kvm_sregs2 sregs{};
  STASIS_TRY(call("KVM_GET_SREGS2", KVM_GET_SREGS2, &sregs));
  out = LocalApic::power_on(id_);
  out.base = sregs.apic_base & State::kBaseBits;
  const bool x2 = out.base & State::kX2Apic;
  out.tpr = static_cast<u8>(get(page, kTpr));
  out.ldr = x2 ? 0 : static_cast<u8>(get(page, kLdr) >> 24);
  out.dfr = x2 ? ~0u : get(page, kDfr) | 0x0fff'ffff;
  out.svr = get(page, kSvr) & 0x1ff;
  for (unsigned i = 0; i < 8; ++i) {
    out.isr[i] = get(page, kIsr + 16 * i);
    out.tmr[i] = get(page, kTmr + 16 * i);
    out.irr[i] = get(page, kIrr + 16 * i);
  }
  out.esr = get(page, kEsr) & 0xe0;
  out.icr = (get(page, kIcr) | u64{get(page, kIcrHigh)} << 32) & State::kIcrBits;
  out.lvt_timer = get(page, kLvtTimer) & State::kTimerBits;
  out.lvt_thermal = get(page, kLvtThermal) & State::kLocalBits;
  out.lvt_performance = get(page, kLvtPerformance) & State::kLocalBits;
  out.lvt_lint0 = get(page, kLvtLint0) & State::kLintBits;
  out.lvt_lint1 = get(page, kLvtLint1) & State::kLintBits;
  out.lvt_error = get(page, kLvtError) & State::kErrorBits;
  out.timer_initial = get(page, kInitial);
  out.timer_divide = get(page, kDivide) & 0xb;
  const u32 left = get(page, kCurrent);
  if (timer_mode(out) == 2) {
    STASIS_TRY_SET(out.deadline, read_msr(kDeadlineMsr));
    if (out.deadline) out.deadline_ns = LocalApic::deadline_time(out.deadline, at.tsc_offset, at.guest_ns, at.tsc_hz);
    out.timer_initial = 0;
  } else if (out.timer_initial != 0 && (left != 0 || timer_mode(out) == 1)) {
    out.timer_armed = true;
    out.timer_origin_ns = at.guest_ns - (out.timer_initial - left) * divider(out);
  }
  if (expired_since(out, settled_left_, left, at.guest_ns - at.settled_ns)) request_timer_interrupt(out);
  return {};
}

Result<> Vcpu::write_apic(const State& in, const Instant& at) {
  kvm_sregs2 sregs{};
  STASIS_TRY(call("KVM_GET_SREGS2", KVM_GET_SREGS2, &sregs));
  if (sregs.apic_base != in.base || sregs.cr8 != static_cast<u64>(in.tpr >> 4)) {
    sregs.apic_base = in.base;
    sregs.cr8 = in.tpr >> 4;
    STASIS_TRY(call("KVM_SET_SREGS2", KVM_SET_SREGS2, &sregs));
  }
  kvm_lapic_state page{};
  STASIS_TRY(call("KVM_GET_LAPIC", KVM_GET_LAPIC, &page));  // the version register is KVM's
  const bool x2 = in.base & State::kX2Apic;
  put(page, kId, x2 ? in.id : in.id << 24);
  put(page, kTpr, in.tpr);
  put(page, kLdr, x2 ? (in.id >> 4) << 16 | 1u << (in.id & 0xf) : u32{in.ldr} << 24);
  put(page, kDfr, in.dfr);
  put(page, kSvr, in.svr);
  for (unsigned i = 0; i < 8; ++i) {
    put(page, kIsr + 16 * i, in.isr[i]);
    put(page, kTmr + 16 * i, in.tmr[i]);
    put(page, kIrr + 16 * i, in.irr[i]);
  }
  put(page, kEsr, in.esr);
  put(page, kIcr, static_cast<u32>(in.icr));
  put(page, kIcrHigh, static_cast<u32>(in.icr >> 32));
  put(page, kLvtTimer, in.lvt_timer);
  put(page, kLvtThermal, in.lvt_thermal);
  put(page, kLvtPerformance, in.lvt_performance);
  put(page, kLvtLint0, in.lvt_lint0);
  put(page, kLvtLint1, in.lvt_lint1);
  put(page, kLvtError, in.lvt_error);
  // KVM would let an expired one-shot expire again, so its initial count reads as 0 afterwards.
  put(page, kInitial, in.timer_armed ? in.timer_initial : 0);
  settled_left_ = count_left(in, at.guest_ns);
  put(page, kCurrent, settled_left_);
  put(page, kDivide, in.timer_divide);
  STASIS_TRY(call("KVM_SET_LAPIC", KVM_SET_LAPIC, &page));
  if (timer_mode(in) == 2) return write_msr(kDeadlineMsr, in.deadline);
  return {};
}

}  // namespace stasis::kvm
