// The MC146818's registers, interrupts and lazily counted time.
#include "devices/mc146818/rtc.hpp"

#include <algorithm>

namespace stasis {
namespace {

constexpr u64 kChainHz = 32'768;
constexpr u64 kUpdate = 244'000 + 1'984'000;  // UIP: 244 us ahead of the update, and while it lasts
constexpr u8 kSet = 0x80, kUpdateEnded = 0x10, kAlarm = 0x20, kPeriodic = 0x40, kSquareWave = 0x08;  // B; C alike
constexpr u8 kSources = kUpdateEnded | kAlarm | kPeriodic;

// log2 of the periodic interrupt's period in ticks of the chain; rates 1 and 2 repeat 8 and 9. Rate 0: none.
unsigned period_shift(u8 a) {
  const unsigned rate = a & 15;
  return rate < 3 ? rate + 6 : rate - 1;
}

}  // namespace

Rtc::Rtc(Clock& clock, IrqLine& irq8, u64 start_seconds)
    : clock_(clock), irq8_(irq8), alarm_(clock, [this] {
        catch_up();
        settle();
      }) {
  s_.start_seconds = std::min(start_seconds, RtcState::kLatestStart);
  reset();
}

void Rtc::attach(PortBus& bus) { bus.map(0x70, 0x71, *this); }

void Rtc::set_cmos(u8 index, u8 value) {
  STASIS_ASSERT(index >= RtcState::kFirstNvram && index < 128);
  s_.nvram[index - RtcState::kFirstNvram] = board_[index - RtcState::kFirstNvram] = value;
}

void Rtc::reset() {
  s_ = {.start_seconds = s_.start_seconds, .seen_ns = clock_.now(), .nvram = board_};
  rtc::set_time(s_.time, century(), s_.b, s_.start_seconds + clock_.now() / kSecond);
  settle();
}

void Rtc::reset_pin() {
  catch_up();
  s_.b &= static_cast<u8>(~(kSources | kSquareWave));
  s_.c = 0;
  settle();
}

u64 Rtc::periods(u64 time) const {
  return static_cast<u64>(static_cast<u128>(position(time)) * kChainHz / kSecond) >> period_shift(s_.a);
}

bool Rtc::updating() const {
  return running() && !(s_.b & kSet) && position(clock_.now()) % kSecond >= kSecond - kUpdate;
}

// Counts the time since seen_ns and notes what happened in it.
void Rtc::catch_up() {
  const u64 now = clock_.now();
  if (now <= s_.seen_ns) return;
  if (running()) {
    if ((s_.a & 15) && periods(now) != periods(s_.seen_ns)) s_.c |= kPeriodic;
    const u64 updates = position(now) / kSecond - position(s_.seen_ns) / kSecond;
    if (updates && !(s_.b & kSet)) {
      const u32 alarm = rtc::seconds_to_alarm(s_.time, s_.b);
      if (alarm && alarm <= updates) s_.c |= kAlarm;
      s_.c |= kUpdateEnded;
      rtc::count_on(s_.time, century(), s_.b, updates);
    }
  }
  s_.seen_ns = now;
}

// When, after seen_ns, the first flag comes that raises IRQ 8. None while it is high already.
u64 Rtc::next_event() const {
  const u8 wanted = s_.b & kSources;
  if (!running() || !wanted || (s_.c & wanted)) return Clock::kNever;
  u64 next = Clock::kNever;
  if ((wanted & kPeriodic) && (s_.a & 15)) {
    const u64 tick = (periods(s_.seen_ns) + 1) << period_shift(s_.a);
    next = mul_div_up(tick, kSecond, kChainHz) + s_.phase_ns - kSecond;
  }
  if (s_.b & kSet) return next;
  const u64 last_update = position(s_.seen_ns) / kSecond * kSecond + s_.phase_ns - kSecond;  // may wrap below zero
  if (wanted & kUpdateEnded) next = std::min(next, last_update + kSecond);
  else if (const u32 alarm = wanted & kAlarm ? rtc::seconds_to_alarm(s_.time, s_.b) : 0)
    next = std::min(next, last_update + alarm * kSecond);
  return next;
}

void Rtc::settle() {
  irq8_.set((s_.c & s_.b & kSources) != 0);
  alarm_.at(next_event());
}

u32 Rtc::port_read(u16 port, unsigned) {
  if (port == 0x70) return 0xff;  // write-only
  catch_up();
  const u8 value = read_register();
  settle();
  return value;
}

void Rtc::port_write(u16 port, unsigned, u32 value) {
  catch_up();
  if (port == 0x70) s_.index = static_cast<u8>(value);
  else write_register(static_cast<u8>(value));
  settle();
}

u8 Rtc::read_register() {
  const unsigned index = s_.index & 0x7f;
  if (index < s_.time.size()) return s_.time[index];
  switch (index) {
    case 0x0a: return static_cast<u8>(s_.a | (updating() ? 0x80 : 0));
    case 0x0b: return s_.b;
    case 0x0c: {
      const u8 flags = s_.c;
      s_.c = 0;
      return static_cast<u8>(flags | (flags & s_.b & kSources ? 0x80 : 0));
    }
    case 0x0d: return 0x80;  // the battery is good
    default: return s_.nvram[index - RtcState::kFirstNvram];
  }
}

void Rtc::write_register(u8 value) {
  const unsigned index = s_.index & 0x7f;
  if (index < s_.time.size()) s_.time[index] = value;
  else if (index == 0x0a) write_a(value);
  else if (index == 0x0b) write_b(value);
  else if (index >= RtcState::kFirstNvram) s_.nvram[index - RtcState::kFirstNvram] = value;
}

// The first update comes half a second after the divider is let go.
void Rtc::write_a(u8 value) {
  const bool was_running = running();
  s_.a = value & 0x7f;
  if (running() && !was_running) s_.phase_ns = static_cast<u32>((clock_.now() + kSecond / 2) % kSecond);
}

void Rtc::write_b(u8 value) {
  if (value & ~s_.b & kSet) value &= static_cast<u8>(~kUpdateEnded);  // SET going high clears UIE
  s_.b = value;
}

}  // namespace stasis
