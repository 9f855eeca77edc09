// HPET: the counter and its matches in guest time.
//
// Each timer keeps the time of its next match. A match that nobody could notice sets no alarm; reads look past
// such matches without changing anything, and catch_up() passes them in one step before a write.
#include "devices/hpet/hpet.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace stasis {
namespace {

constexpr u64 kCapabilities = 0x000, kConfig = 0x010, kStatus = 0x020, kCounter = 0x0f0, kTimers = 0x100;
constexpr u64 kTimerConfig = 0x00, kTimerComparator = 0x08, kTimerFsb = 0x10;
constexpr u64 kPeriodFs = 10'000'000;
// Revision 1, three timers, 64 bits, legacy replacement, vendor 0x8086.
constexpr u64 kCapabilityBits = kPeriodFs << 32 | 0x8086'0000 | 1u << 15 | 1u << 13 | 2u << 8 | 1;
// I/O APIC pins 20 to 23; messages, 64 bits, periodic.
constexpr u64 kTimerCapabilities = u64{0x00f0'0000} << 32 | 1u << 15 | 1u << 5 | 1u << 4;
constexpr u64 kValueSet = 1 << 6;

u64 saturated(u128 time) { return static_cast<u64>(std::min<u128>(time, Clock::kNever)); }
u64 merged(u64 old, u64 value, u64 written) { return (old & ~written) | (value & written); }
bool routable(unsigned route) { return route == 0 || kTimerCapabilities >> 32 >> route & 1; }

}  // namespace

Hpet::Hpet(Clock& clock, HpetWires& wires, MessageSink& messages)
    : clock_(clock), wires_(wires), messages_(messages), alarm_(clock, [this] {
        catch_up();
        settle();
      }) {}

std::string Hpet::check(const HpetState& s) const {
  for (unsigned n = 0; n < s.timer.size(); ++n) {
    const Timer& t = s.timer[n];
    if (!routable(t.route())) return fmt::format("timer/{}/config routes to pin {}, allowed are none and 20 to 23", n, t.route());
    if ((t.comparator | t.period) & ~t.wrap_mask())
      return fmt::format("timer/{} has more than 32 bits in 32-bit mode", n);
    if (t.set_value && !t.is(Timer::kPeriodic)) return fmt::format("timer/{}/set_value is set, but it is not periodic", n);
    if (!(s.config & State::kEnable) && t.due_ns != Clock::kNever)
      return fmt::format("timer/{}/due_ns is {}, but the counter is halted", n, t.due_ns);
    if (s.status >> n & 1 && (!t.is(Timer::kLevel) || t.is(Timer::kFsb)))
      return fmt::format("status has bit {} set, but that timer is not level-triggered", n);
  }
  return {};
}

u64 Hpet::counter() const {
  return running() ? s_.counter + (clock_.now() - s_.origin_ns) / kTickNs : s_.counter;
}

void Hpet::find_next_match(Timer& timer) const {
  timer.due_ns = Clock::kNever;
  if (!running()) return;
  const u64 distance = (timer.comparator - counter()) & timer.wrap_mask();
  const u64 last_tick_ns = clock_.now() - (clock_.now() - s_.origin_ns) % kTickNs;
  timer.due_ns = distance == 0 ? clock_.now() : saturated(static_cast<u128>(last_tick_ns) + static_cast<u128>(distance) * kTickNs);
}

bool Hpet::pass_matches(Timer& timer) const {
  if (timer.due_ns > clock_.now()) return false;
  const bool periodic = timer.is(Timer::kPeriodic) && timer.period != 0;
  const u128 step = periodic ? timer.period : static_cast<u128>(timer.wrap_mask()) + 1;  // to the next match, in ticks
  const u128 passed = (clock_.now() - timer.due_ns) / (step * kTickNs) + 1;
  if (periodic) timer.comparator = static_cast<u64>(timer.comparator + passed * step) & timer.wrap_mask();
  timer.due_ns = saturated(timer.due_ns + passed * step * kTickNs);
  return true;
}

void Hpet::catch_up() {
  for (unsigned n = 0; n < s_.timer.size(); ++n)
    if (pass_matches(s_.timer[n])) interrupt(n);
}

u64 Hpet::status() const {
  u64 bits = s_.status;
  for (unsigned n = 0; n < s_.timer.size(); ++n)
    if (level(n) && s_.timer[n].due_ns <= clock_.now()) bits |= 1u << n;
  return bits;
}

IrqLine* Hpet::wire(unsigned n) const {
  if (legacy_active() && n == 0) return &wires_.irq0;
  if (legacy_active() && n == 1) return &wires_.irq8;
  const unsigned route = s_.timer[n].route();
  return route == 0 ? nullptr : &wires_.pins[route - kFirstPin];
}

bool Hpet::match_shows(unsigned n) const {
  const Timer& timer = s_.timer[n];
  if (!timer.is(Timer::kInterrupt)) return false;
  if (timer.is(Timer::kFsb)) return true;
  return wire(n) && !(level(n) && s_.status >> n & 1);
}

void Hpet::interrupt(unsigned n) {
  const Timer& timer = s_.timer[n];
  if (level(n)) {
    s_.status |= static_cast<u8>(1u << n);
    return;  // settle() drives the wire
  }
  if (!timer.is(Timer::kInterrupt)) return;
  if (timer.is(Timer::kFsb)) return messages_.deliver(timer.fsb >> 32, static_cast<u32>(timer.fsb));
  if (IrqLine* out = wire(n)) {
    out->pulse();
    drive_levels();  // the wire may be shared
  }
}

void Hpet::drive_levels() {
  const auto driven = [&](const IrqLine& line) {
    for (unsigned n = 0; n < s_.timer.size(); ++n)
      if (s_.status >> n & 1 && s_.timer[n].is(Timer::kInterrupt) && wire(n) == &line) return true;
    return false;
  };
  wires_.irq0.set(driven(wires_.irq0));
  wires_.irq8.set(driven(wires_.irq8));
  for (IrqLine& pin : wires_.pins) pin.set(driven(pin));
}

void Hpet::settle() {
  if (legacy_) legacy_(legacy_active());
  drive_levels();
  u64 next = Clock::kNever;
  for (unsigned n = 0; n < s_.timer.size(); ++n)
    if (match_shows(n)) next = std::min(next, s_.timer[n].due_ns);
  alarm_.at(next);
}

u64 Hpet::read_register(u64 offset) const {
  switch (offset) {
    case kCapabilities: return kCapabilityBits;
    case kConfig: return s_.config;
    case kStatus: return status();
    case kCounter: return counter();
    default: break;
  }
  const u64 n = (offset - kTimers) / 0x20;
  if (offset < kTimers || n >= s_.timer.size()) return 0;
  Timer timer = s_.timer[n];
  pass_matches(timer);
  switch (offset % 0x20) {
    case kTimerConfig: return kTimerCapabilities | timer.config;
    case kTimerComparator: return timer.comparator;
    case kTimerFsb: return timer.fsb;
    default: return 0;
  }
}

void Hpet::write_config(u8 value) {
  const bool was_running = running();
  if (was_running && !(value & State::kEnable)) s_.counter = counter();
  s_.config = value & (State::kEnable | State::kLegacy);
  if (was_running == running()) return;
  s_.origin_ns = running() ? clock_.now() : 0;
  for (Timer& timer : s_.timer) find_next_match(timer);
}

void Hpet::write_timer_config(unsigned n, u64 value) {
  Timer& timer = s_.timer[n];
  const u16 old = timer.config;
  timer.config = value & Timer::kWritable;
  if (!routable(timer.route())) timer.config = (timer.config & ~Timer::kRoute) | (old & Timer::kRoute);
  timer.set_value = value & kValueSet && timer.is(Timer::kPeriodic);
  if (!level(n)) s_.status &= static_cast<u8>(~(1u << n));
  if ((old ^ timer.config) & Timer::kMode32) {
    timer.comparator &= timer.wrap_mask();
    timer.period &= timer.wrap_mask();
    find_next_match(timer);
  }
}

void Hpet::write_comparator(unsigned n, u64 value, u64 written) {
  Timer& timer = s_.timer[n];
  const auto write = [&](u64& reg) { reg = merged(reg, value, written) & timer.wrap_mask(); };
  if (timer.is(Timer::kPeriodic)) write(timer.period);
  if (timer.is(Timer::kPeriodic) && !timer.set_value) return;
  timer.set_value = false;
  write(timer.comparator);
  find_next_match(timer);
}

// `written` has ones in the half, or both, that the access covers.
void Hpet::write_register(u64 offset, u64 value, u64 written) {
  switch (offset) {
    case kConfig: return write_config(static_cast<u8>(merged(s_.config, value, written)));
    case kStatus: s_.status &= static_cast<u8>(~(value & written)); return;
    case kCounter:
      s_.counter = merged(counter(), value, written);
      if (running()) s_.origin_ns = clock_.now();
      for (Timer& timer : s_.timer) find_next_match(timer);
      return;
    default: break;
  }
  const u64 n = (offset - kTimers) / 0x20;
  if (offset < kTimers || n >= s_.timer.size()) return;
  switch (offset % 0x20) {
    case kTimerConfig: return write_timer_config(static_cast<unsigned>(n), merged(s_.timer[n].config, value, written));
    case kTimerComparator: return write_comparator(static_cast<unsigned>(n), value, written);
    case kTimerFsb: s_.timer[n].fsb = merged(s_.timer[n].fsb, value, written); return;
    default: return;
  }
}

u64 Hpet::mmio_read(u64 offset, unsigned size) {
  const u64 value = read_register(offset & ~u64{7}) >> 8 * (offset & 7);
  return size >= 8 ? value : value & ((u64{1} << 8 * size) - 1);
}

void Hpet::mmio_write(u64 offset, unsigned size, u64 value) {
  if (size < 4 || offset % size != 0) return;  // the specification allows aligned 32 and 64-bit accesses only
  catch_up();
  const u64 written = size == 8 ? ~u64{0} : u64{0xffff'ffff} << 8 * (offset & 4);
  write_register(offset & ~u64{7}, offset & 4 ? value << 32 : value, written);
  catch_up();  // a comparator set to where the counter stands matches at once
  settle();
}

}  // namespace stasis
