// A KVM machine's time: the guest clock, TSCs and the pvclock against the host's TSC (docs/decisions/0007).
#include <algorithm>
#include <cstdlib>

#include "cpu/kvm/engine.hpp"

namespace stasis::kvm {

u64 KvmEngine::guest_time_at(u64 ticks) const {
  return base_ns_ + span_ns(base_ticks_, ticks);
}

u64 KvmEngine::guest_now() const { return guest_time_at(system_.kernel->time_stamp()); }

void KvmEngine::advance_clock() { board_.clock.advance_to(std::max(board_.clock.now(), guest_now())); }

Instant KvmEngine::instant(u32 vcpu) const {
  return {.guest_ns = board_.clock.now(), .tsc_hz = board_.contract.tsc_hz, .tsc_offset = states_[vcpu].tsc_offset,
          .settled_ns = workers_[vcpu]->settled_ns};
}

// A TSC goes as fast as this host lets it, which may not be quite what the contract says: within 250 ppm without scaling, in
// whole kHz with it. What it is ahead of guest time then belongs to its offset, or it would jump, perhaps back, when it goes on.
Result<u64> KvmEngine::tsc_ahead(u64 ticks, u64 kernel_offset, u64 expected) const {
  if (board_.contract.tsc_hz == system_.tsc_hz) return 0;
  if (!scales()) return ticks + kernel_offset - expected;
  STASIS_TRY_SET(const u64 seen, scaled_tsc_at(ticks));
  return seen - expected;
}

// KVM scales with a fraction of its own, whose error grows with the host's uptime: so the TSC of vCPU 0 is read, between two
// looks at the host's, and the closest of some tries counts. The host's may be read on another processor, a little behind.
Result<u64> KvmEngine::scaled_tsc_at(u64 ticks) const {
  constexpr unsigned kTries = 5, kMostTries = 100;
  const u64 good = mul_div(system_.tsc_hz, 20 * kMicrosecond, kSecond);
  u64 seen = 0, closest = ~u64{0};
  for (unsigned i = 0; i < kTries || (closest > good && i < kMostTries); ++i) {
    const u64 before = system_.kernel->time_stamp();
    STASIS_TRY_SET(const u64 tsc, workers_[0]->vcpu.guest_tsc());
    const u64 span = system_.kernel->time_stamp() - before;
    if (span >= closest) continue;
    closest = span;
    const i64 since = static_cast<i64>(before + span / 2 - ticks);
    seen = since < 0 ? tsc + scaled(static_cast<u64>(-since)) : tsc - scaled(static_cast<u64>(since));
  }
  return seen;
}

// From here on guest time runs: TSCs, the pvclock, and the timers that count in them.
Result<> KvmEngine::set_time(u64 at) {
  const u64 tsc = mul_div(board_.clock.now(), board_.contract.tsc_hz, kSecond);
  const auto set_offsets = [&](u64 base) -> Result<> {
    for (u32 id = 0; id < vcpus(); ++id) {
      Worker& worker = *workers_[id];
      worker.kernel_offset = base + states_[id].tsc_offset;
      STASIS_TRY(worker.vcpu.set_kernel_tsc_offset(worker.kernel_offset));
    }
    return {};
  };
  const u64 base = tsc - (scales() ? scaled(at) : at);
  STASIS_TRY(set_offsets(base));
  if (scales()) {
    STASIS_TRY_SET(const u64 seen, scaled_tsc_at(at));
    STASIS_TRY(set_offsets(base + (tsc + states_[0].tsc_offset - seen)));
  }
  STASIS_TRY(set_pvclock(at));
  for (u32 id = 0; id < vcpus(); ++id) {
    Instant now = instant(id);
    now.guest_ns += since(at);  // a timer's count is what is left when it is set
    STASIS_TRY(workers_[id]->vcpu.write_apic(get_apic(id), now));
    workers_[id]->settled_ns = now.guest_ns;
  }
  return {};
}

u64 KvmEngine::since(u64 ticks) const { return span_ns(ticks, system_.kernel->time_stamp()); }

// Nothing, when it was read on a processor whose TSC is a little behind.
u64 KvmEngine::span_ns(u64 from, u64 to) const { return to > from ? mul_div(to - from, kSecond, system_.tsc_hz) : 0; }

// KVM_SET_CLOCK takes effect some time after the value for it was computed, and its clock would lag by as much more with
// every resume. So the lag is measured against the host's TSC and taken out, as well as the host's scheduler lets us.
Result<> KvmEngine::set_pvclock(u64 at) {
  constexpr i64 kGood = 500, kBad = kMillisecond / 2;
  i64 correction = 0;
  for (i64 allowed = kGood; allowed < kBad; allowed *= 2) {
    STASIS_TRY(vm_->set_clock_ns(board_.clock.now() + since(at) + board_.pvclock.offset_ns + static_cast<u64>(correction)));
    STASIS_TRY_SET(const Vm::ClockReading seen, vm_->clock());
    if (seen.host_tsc == 0) break;
    const u64 wanted = board_.clock.now() + span_ns(at, seen.host_tsc) + board_.pvclock.offset_ns;
    const i64 lag = static_cast<i64>(wanted - seen.ns);
    if (std::abs(lag) <= allowed) break;
    correction += lag;
  }
  return {};
}

}  // namespace stasis::kvm
