// UART: registers, interrupts by priority, and the receiver's timeout in guest time.
#include "devices/uart16550/uart.hpp"

#include <utility>

#include "base/error.hpp"

namespace stasis {
namespace {

enum Register : u8 { kData, kIer, kIirFcr, kLcr, kMcr, kLsr, kMsr, kScr };  // kData, kIer: the divisor when DLAB is set
enum Ier : u8 { kOnReceived = 1, kOnEmpty = 2, kOnLineStatus = 4, kOnModemStatus = 8 };
enum Iir : u8 { kModemStatus = 0, kNone = 1, kEmpty = 2, kReceived = 4, kLineStatus = 6, kTimeout = 0xc };
enum Lsr : u8 { kDataReady = 1, kOverrun = 2, kTransmitterEmpty = 0x60 };
enum Mcr : u8 { kDtr = 1, kRts = 2, kOut1 = 4, kOut2 = 8 };
enum Msr : u8 { kCts = 0x10, kDsr = 0x20, kRi = 0x40, kDcd = 0x80 };
constexpr u8 kFifoEnable = 1, kClearReceiver = 2;
constexpr u64 kCrystalHz = 1'843'200;

}  // namespace

Uart::Uart(Clock& clock, IrqLine& irq, host::CharacterSink& sink)
    : clock_(clock), irq_(irq), sink_(sink), alarm_(clock, [this] { settle(); }) {}

void Uart::attach(PortBus& bus, u16 base) {
  STASIS_ASSERT(base % 8 == 0);
  bus.map(base, base + 7, *this);
}

std::string Uart::check(const UartState& s) const {
  const bool fifo = s.fcr & kFifoEnable;
  if (!fifo && s.fcr != 0) return fmt::format("fcr is {:#x}, without its bit 0 it is 0", s.fcr);
  if (!fifo && s.receiver.size() > 1) return fmt::format("receiver holds {} characters with the FIFO off", s.receiver.size());
  if ((fifo && !s.receiver.empty()) != (s.timeout_ns != Clock::kNever))
    return "timeout_ns does not fit: it is set exactly while the FIFO is on and holds characters";
  return {};
}

bool Uart::at_trigger_level() const {
  static constexpr std::array<u8, 4> kLevels{1, 4, 8, 14};
  return fifo_enabled() ? s_.receiver.size() >= kLevels[s_.fcr >> 6] : !s_.receiver.empty();
}

u8 Uart::interrupt() const {
  if (s_.ier & kOnLineStatus && s_.overrun) return kLineStatus;
  if (s_.ier & kOnReceived && at_trigger_level()) return kReceived;
  if (s_.ier & kOnReceived && timed_out()) return kTimeout;
  if (s_.ier & kOnEmpty && s_.thr_interrupt) return kEmpty;
  if (s_.ier & kOnModemStatus && s_.modem_changes) return kModemStatus;
  return kNone;
}

void Uart::settle() {
  irq_.set(s_.mcr & kOut2 && interrupt() != kNone);
  const bool timeout_shows = s_.ier & kOnReceived && !at_trigger_level() && !timed_out();
  alarm_.at(timeout_shows ? s_.timeout_ns : Clock::kNever);
}

u8 Uart::line_status() const {
  return static_cast<u8>(kTransmitterEmpty | (s_.overrun ? kOverrun : 0) | (s_.receiver.empty() ? 0 : kDataReady));
}

u8 Uart::modem_inputs() const {
  if (!loopback()) return kCts | kDsr | kDcd;
  return static_cast<u8>((s_.mcr & kRts ? kCts : 0) | (s_.mcr & kDtr ? kDsr : 0) | (s_.mcr & kOut1 ? kRi : 0) |
                         (s_.mcr & kOut2 ? kDcd : 0));
}

// While the line loops back, the outside is cut off: its bytes wait there.
bool Uart::can_receive() const {
  return !loopback() && (fifo_enabled() ? !s_.receiver.full() : s_.receiver.empty());
}

void Uart::receive(u8 byte) {
  take(byte);
  settle();
}

void Uart::take(u8 byte) {
  const bool full = fifo_enabled() ? s_.receiver.full() : !s_.receiver.empty();
  if (full) s_.overrun = true;
  if (full && fifo_enabled()) return;   // the FIFO keeps what it has,
  if (full) s_.receiver.clear();        // the single buffer is overwritten
  s_.receiver.push(byte);
  restart_timeout();
}

// Four characters from the last one received or read.
void Uart::restart_timeout() {
  const u64 bits = 1 + 5 + (s_.lcr & 3) + (s_.lcr >> 3 & 1) + 1 + (s_.lcr >> 2 & 1);
  const u64 cycles = 4 * bits * 16 * (s_.divisor ? s_.divisor : 1);
  s_.timeout_ns = fifo_enabled() && !s_.receiver.empty() ? clock_.now() + mul_div_up(cycles, kSecond, kCrystalHz) : Clock::kNever;
}

u8 Uart::read_receiver() {
  if (s_.receiver.empty()) return 0;
  const u8 byte = s_.receiver.pop();
  restart_timeout();
  settle();
  return byte;
}

void Uart::transmit(u8 byte) {
  s_.thr_interrupt = false;
  settle();  // THR is full for a moment: an edge for who waits for the next interrupt
  if (loopback()) take(byte);
  else sink_.put(byte);
  s_.thr_interrupt = true;
  settle();
}

void Uart::write_ier(u8 value) {
  if (value & kOnEmpty && !(s_.ier & kOnEmpty)) s_.thr_interrupt = true;  // THR is empty: interrupts at once
  s_.ier = value & 0x0f;
  settle();
}

void Uart::write_fcr(u8 value) {
  const bool toggled = (value ^ s_.fcr) & kFifoEnable;
  s_.fcr = value & kFifoEnable ? value & 0xc9 : 0;
  if (toggled || (fifo_enabled() && value & kClearReceiver)) s_.receiver.clear();
  if (s_.receiver.empty()) s_.timeout_ns = Clock::kNever;
  settle();
}

void Uart::write_mcr(u8 value) {
  const u8 before = modem_inputs();
  s_.mcr = value & 0x1f;
  const u8 after = modem_inputs(), changed = before ^ after;
  const u8 ring_ended = before & ~after & kRi;  // RI counts at its end only
  s_.modem_changes |= static_cast<u8>(((changed & ~kRi) | ring_ended) >> 4);
  settle();
}

u32 Uart::port_read(u16 port, unsigned) {
  switch (port & 7) {
    case kData: return divisor_access() ? s_.divisor & 0xff : read_receiver();
    case kIer: return divisor_access() ? s_.divisor >> 8 : s_.ier;
    case kIirFcr: {
      const u8 id = interrupt();
      if (id == kEmpty) {  // seen
        s_.thr_interrupt = false;
        settle();
      }
      return id | (fifo_enabled() ? 0xc0u : 0u);
    }
    case kLcr: return s_.lcr;
    case kMcr: return s_.mcr;
    case kLsr: {
      const u8 status = line_status();
      if (std::exchange(s_.overrun, false)) settle();
      return status;
    }
    case kMsr: {
      const u8 status = modem_inputs() | s_.modem_changes;
      if (std::exchange(s_.modem_changes, 0)) settle();
      return status;
    }
    default: return s_.scr;
  }
}

void Uart::port_write(u16 port, unsigned, u32 value) {
  const u8 byte = static_cast<u8>(value);
  switch (port & 7) {
    case kData:
      if (divisor_access()) s_.divisor = static_cast<u16>((s_.divisor & 0xff00) | byte);
      else transmit(byte);
      break;
    case kIer:
      if (divisor_access()) s_.divisor = static_cast<u16>((s_.divisor & 0xff) | byte << 8);
      else write_ier(byte);
      break;
    case kIirFcr: write_fcr(byte); break;
    case kLcr: s_.lcr = byte; break;
    case kMcr: write_mcr(byte); break;
    case kScr: s_.scr = byte; break;
    default: break;  // LSR and MSR are read-only
  }
}

}  // namespace stasis
