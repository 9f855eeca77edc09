// The local APIC's modes, registers and MSRs (Intel SDM vol. 3A, 11.4 and 11.12).
#include "cpu/local_apic.hpp"

#include "base/error.hpp"

namespace stasis {
namespace {

constexpr u32 kVersion = 0x0005'0014;  // version 0x14, six LVT entries, EOI broadcast always
enum Register : u32 {
  kId = 0x02, kVersionRegister = 0x03, kTpr = 0x08, kApr = 0x09, kPpr = 0x0a, kEoi = 0x0b, kRrd = 0x0c, kLdr = 0x0d,
  kDfr = 0x0e, kSvr = 0x0f, kIsr = 0x10, kTmr = 0x18, kIrr = 0x20, kEsr = 0x28, kIcr = 0x30, kIcrHigh = 0x31,
  kLvtTimer = 0x32, kLvtThermal = 0x33, kLvtPerformance = 0x34, kLvtLint0 = 0x35, kLvtLint1 = 0x36, kLvtError = 0x37,
  kInitialCount = 0x38, kCurrentCount = 0x39, kDivide = 0x3e, kSelfIpi = 0x3f,
};
constexpr u32 kRemoteIrr = 1u << 14;
constexpr u32 kIllegalRegister = 0x80;
constexpr u32 kMsrBase = 0x1b, kMsrDeadline = 0x6e0, kMsrX2Apic = 0x800;

}  // namespace

LocalApic::LocalApic(Clock& clock, u32 id, u64 tsc_hz)
    : clock_(clock), id_(id), tsc_hz_(tsc_hz), alarm_(clock, [this] {
        catch_up();
        settle();
      }) {
  STASIS_ASSERT(tsc_hz > 0);
  reset();
}

LocalApicState LocalApic::power_on(u32 id) {
  State fresh{.id = id};
  if (id == 0) fresh.base |= State::kBootstrap;
  return fresh;
}

void LocalApic::reset() {
  s_ = power_on(id_);
  settle();
}

void LocalApic::init() {
  State fresh = power_on(id_);
  fresh.base = s_.base;
  fresh.lint0 = s_.lint0;
  fresh.lint1 = s_.lint1;
  s_ = fresh;
  settle();
}

std::string LocalApic::check_state(const LocalApicState& s, u32 id) {
  const auto wrong = [](std::string_view what) { return std::string(what); };
  if (s.id != id) return fmt::format("id is {}, this processor's is {}", s.id, id);
  if ((s.base & State::kX2Apic) && !(s.base & State::kGlobalEnable)) return wrong("base has x2APIC mode without the enable bit");
  if ((s.dfr | 0xf000'0000) != 0xffff'ffff) return fmt::format("dfr is {:#x}, its low 28 bits are always ones", s.dfr);
  if ((s.isr[0] | s.tmr[0] | s.irr[0]) & 0xffff) return wrong("isr, tmr or irr holds a vector below 16");
  const u32 all_masked = s.lvt_timer & s.lvt_thermal & s.lvt_performance & s.lvt_lint0 & s.lvt_lint1 & s.lvt_error;
  if (!(s.svr & State::kSoftwareEnable) && !(all_masked & State::kMasked))
    return wrong("svr disables the APIC, but an LVT entry is not masked");
  const u32 mode = s.lvt_timer >> 17 & 3;
  if (mode > kDeadline) return wrong("lvt_timer has timer mode 3, allowed are 0 to 2");
  if (s.timer_armed && (s.timer_initial == 0 || mode == kDeadline))
    return wrong("timer_armed without an initial count, or in TSC-deadline mode");
  if (s.deadline != 0 && mode != kDeadline) return wrong("deadline is set, but the timer is not in TSC-deadline mode");
  if (s.deadline == 0 && s.deadline_ns != 0) return wrong("deadline_ns is set, but deadline is not");
  return {};
}

u32* LocalApic::lvt(u32 number) {
  switch (number) {
    case kLvtTimer: return &s_.lvt_timer;
    case kLvtThermal: return &s_.lvt_thermal;
    case kLvtPerformance: return &s_.lvt_performance;
    case kLvtLint0: return &s_.lvt_lint0;
    case kLvtLint1: return &s_.lvt_lint1;
    default: return &s_.lvt_error;
  }
}

// The bits of an LVT entry that software may set.
u64 LocalApic::lvt_bits(u32 number) const {
  switch (number) {
    case kLvtTimer: return State::kTimerBits;
    case kLvtLint0:
    case kLvtLint1: return State::kLintBits & ~kRemoteIrr;
    case kLvtError: return State::kErrorBits;
    default: return State::kLocalBits;
  }
}

bool LocalApic::read_register(u32 number, u64& value) const {
  const auto give = [&](u64 v) { return value = v, true; };
  if (number >= kIsr && number < kTmr) return give(s_.isr[number - kIsr]);
  if (number >= kTmr && number < kIrr) return give(s_.tmr[number - kTmr]);
  if (number >= kIrr && number < kEsr) return give(s_.irr[number - kIrr]);
  switch (number) {
    case kId: return give(x2apic() ? s_.id : s_.id << 24);
    case kVersionRegister: return give(kVersion);
    case kTpr: return give(s_.tpr);
    case kPpr: return give(ppr());
    case kLdr: return give(x2apic() ? logical_id() : u32{s_.ldr} << 24);
    case kSvr: return give(s_.svr);
    case kEsr: return give(s_.esr);
    case kIcr: return give(x2apic() ? s_.icr : static_cast<u32>(s_.icr));
    case kLvtTimer: return give(s_.lvt_timer);
    case kLvtThermal: return give(s_.lvt_thermal);
    case kLvtPerformance: return give(s_.lvt_performance);
    case kLvtLint0: return give(s_.lvt_lint0);
    case kLvtLint1: return give(s_.lvt_lint1);
    case kLvtError: return give(s_.lvt_error);
    case kInitialCount: return give(s_.timer_initial);
    case kCurrentCount: return give(current_count());
    case kDivide: return give(s_.timer_divide);
    case kDfr: return !x2apic() && give(s_.dfr);
    case kIcrHigh: return !x2apic() && give(s_.icr >> 32);
    case kApr:
    case kEoi:
    case kRrd: return !x2apic() && give(0);
    default: return false;
  }
}

bool LocalApic::write_lvt(u32 number, u32 value) {
  if (x2apic() && value & ~lvt_bits(number) & ~u64{0x1000} & ~u64{number == kLvtLint0 || number == kLvtLint1 ? kRemoteIrr : 0})
    return false;
  value &= static_cast<u32>(lvt_bits(number));
  if (!software_enabled()) value |= State::kMasked;
  if (number == kLvtTimer) {
    if ((value >> 17 & 3) > kDeadline) value &= ~(3u << 17);  // reserved mode
    write_timer_lvt(value);
    return true;
  }
  u32* entry = lvt(number);
  const bool still_level = value & *entry & (1u << 15);
  *entry = value | (still_level ? *entry & kRemoteIrr : 0);
  if (number == kLvtLint0) sense_level(s_.lvt_lint0, s_.lint0);
  if (number == kLvtLint1) sense_level(s_.lvt_lint1, s_.lint1);
  return true;
}

void LocalApic::write_svr(u32 value) {
  s_.svr = value & 0x1ff;
  if (software_enabled()) return;
  for (u32 number = kLvtTimer; number <= kLvtError; ++number) *lvt(number) |= State::kMasked;
}

bool LocalApic::write_register(u32 number, u64 value) {
  const bool x2 = x2apic();
  const u32 low = static_cast<u32>(value);
  if (x2 && number != kIcr && value >> 32) return false;
  catch_up();
  const auto only = [&](u64 bits) { return !x2 || !(value & ~bits); };  // reserved bits: #GP as MSRs, ignored in MMIO
  bool ok = true;
  switch (number) {
    case kTpr: ok = only(0xff); if (ok) s_.tpr = static_cast<u8>(low); break;
    case kEoi: ok = only(0); if (ok) end_of_interrupt(); break;
    case kLdr: ok = !x2; if (ok) s_.ldr = static_cast<u8>(low >> 24); break;
    case kDfr: ok = !x2; if (ok) s_.dfr = low | 0x0fff'ffff; break;
    case kSvr: ok = only(0x1ff); if (ok) write_svr(low); break;
    case kEsr:
      ok = only(0);
      if (ok) s_.esr = std::exchange(s_.esr_pending, 0);
      break;
    case kIcr:
      ok = only(State::kIcrBits | 0x1000);
      if (!ok) break;
      s_.icr = (x2 ? value : (s_.icr & ~u64{0xffff'ffff}) | low) & State::kIcrBits;
      send_ipi();
      break;
    case kIcrHigh: ok = !x2; if (ok) s_.icr = (s_.icr & 0xffff'ffff) | u64{low & 0xff00'0000} << 32; break;
    case kLvtTimer: case kLvtThermal: case kLvtPerformance: case kLvtLint0: case kLvtLint1: case kLvtError:
      ok = write_lvt(number, low);
      break;
    case kInitialCount:
      if (timer_mode() == kDeadline) break;
      s_.timer_initial = low;
      s_.timer_armed = low != 0;
      s_.timer_origin_ns = clock_.now();
      break;
    case kDivide: {
      ok = only(0xb);
      if (!ok) break;
      const u64 ticks = (clock_.now() - s_.timer_origin_ns) / timer_divider();
      s_.timer_divide = low & 0xb;
      if (s_.timer_armed) s_.timer_origin_ns = clock_.now() - ticks * timer_divider();  // the count goes on from where it is
      break;
    }
    case kSelfIpi:
      ok = x2 && only(0xff);
      if (ok) receive({.vector = static_cast<u8>(low)});
      break;
    case kId: case kVersionRegister: case kApr: case kPpr: case kRrd: case kCurrentCount: ok = !x2; break;  // read-only
    default: ok = !x2 && number >= kIsr && number < kEsr;
  }
  settle();
  return ok;
}

u64 LocalApic::mmio_read(u64 offset, unsigned size) {
  u64 value = 0;
  if ((offset & 0xf) >= 4) return 0;
  if (!read_register(static_cast<u32>(offset >> 4), value)) {
    catch_up();
    raise_error(kIllegalRegister);
    settle();
    return 0;
  }
  value = (value & 0xffff'ffff) >> 8 * (offset & 3);
  return size >= 4 ? value : value & ((u64{1} << 8 * size) - 1);
}

void LocalApic::mmio_write(u64 offset, unsigned size, u64 value) {
  if (offset & 0xf || size < 4) return;  // undefined by the manual: dropped
  if (write_register(static_cast<u32>(offset >> 4), value & 0xffff'ffff)) return;
  raise_error(kIllegalRegister);
  settle();
}

bool LocalApic::write_base(u64 value) {
  if (value & ~State::kBaseBits) return false;
  const bool enable = value & State::kGlobalEnable, x2 = value & State::kX2Apic;
  if (x2 && !enable) return false;
  if (x2 && !enabled()) return false;            // from disabled to xAPIC mode only
  if (enable && !x2 && x2apic()) return false;   // x2APIC mode is left by disabling
  catch_up();
  if (x2 != x2apic()) s_.icr &= 0xffff'ffff;
  s_.base = value;
  if (!enable) init();
  settle();
  return true;
}

bool LocalApic::read_msr(u32 index, u64& value) {
  if (index == kMsrBase) return value = s_.base, true;
  if (index == kMsrDeadline) return value = expired() ? 0 : s_.deadline, true;
  return x2apic() && read_register(index - kMsrX2Apic, value);
}

bool LocalApic::write_msr(u32 index, u64 value, u64 tsc_offset) {
  if (index == kMsrBase) return write_base(value);
  if (index != kMsrDeadline) return x2apic() && write_register(index - kMsrX2Apic, value);
  catch_up();
  if (timer_mode() == kDeadline) set_deadline(value, tsc_offset);
  catch_up();
  settle();
  return true;
}

u8 LocalApic::cr8() const { return s_.tpr >> 4; }

void LocalApic::set_cr8(u8 priority) {
  catch_up();
  s_.tpr = static_cast<u8>((priority & 0xf) << 4);
  settle();
}

}  // namespace stasis
