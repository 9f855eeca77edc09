// UART with 16-byte FIFOs: National Semiconductor PC16550D datasheet, chapter 8.
//
// A byte written to THR is with the outside at once, so the transmitter is always empty and only the receiver has
// something to save; the THRE interrupt behaves as after a very short transmission. The far end always asserts CTS,
// DSR and DCD. As on a PC, OUT2 opens the gate from INTR to the interrupt line.
#pragma once

#include "bus/clock.hpp"
#include "bus/irq_line.hpp"
#include "bus/port_bus.hpp"
#include "host/character_device.hpp"
#include "state/part.hpp"

namespace stasis {

struct UartState {
  u8 ier = 0, fcr = 0, lcr = 0, mcr = 0, scr = 0;
  u16 divisor = 12;            // DLM:DLL; the datasheet leaves power-on open: 9600 baud
  bool overrun = false;        // LSR.OE
  u8 modem_changes = 0;        // MSR 3:0
  bool thr_interrupt = false;  // THRE interrupt not yet seen in IIR
  state::Fifo<u8, 16> receiver{};
  u64 timeout_ns = Clock::kNever;  // when the characters in the FIFO have waited for four character times

  static constexpr auto layout() {
    using S = UartState;
    return state::Layout("national.16550a", 1, state::field<&S::ier>("ier").hex().allow(0x0f),
                         state::field<&S::fcr>("fcr").hex().allow(0xc9), state::field<&S::lcr>("lcr").hex(),
                         state::field<&S::mcr>("mcr").hex().allow(0x1f), state::field<&S::scr>("scr").hex(),
                         state::field<&S::divisor>("divisor"), state::field<&S::overrun>("overrun"),
                         state::field<&S::modem_changes>("modem_changes").hex().allow(0x0f).help("MSR 3:0"),
                         state::field<&S::thr_interrupt>("thr_interrupt"), state::field<&S::receiver>("receiver").hex(),
                         state::field<&S::timeout_ns>("timeout_ns").unit("ns").help("character timeout; all ones: none"));
  }
};

class Uart final : public state::Stateful<UartState>, public PortDevice {
 public:
  Uart(Clock& clock, IrqLine& irq, host::CharacterSink& sink);
  void attach(PortBus& bus, u16 base);  // eight ports; base is a multiple of 8

  // Input, on the machine's thread. What cannot be received yet stays outside.
  bool can_receive() const;
  void receive(u8 byte);  // can_receive() holds, else the byte is an overrun

  u32 port_read(u16 port, unsigned size) override;
  void port_write(u16 port, unsigned size, u32 value) override;
  void settle() override;

 private:
  std::string check(const UartState& staged) const override;
  bool fifo_enabled() const { return s_.fcr & 1; }
  bool loopback() const { return s_.mcr & 0x10; }
  bool divisor_access() const { return s_.lcr & 0x80; }
  bool timed_out() const { return clock_.now() >= s_.timeout_ns; }
  bool at_trigger_level() const;
  u8 interrupt() const;  // IIR 3:0
  u8 line_status() const;
  u8 modem_inputs() const;  // MSR 7:4
  u8 read_receiver();
  void take(u8 byte);
  void restart_timeout();
  void transmit(u8 byte);
  void write_ier(u8 value);
  void write_fcr(u8 value);
  void write_mcr(u8 value);

  Clock& clock_;
  IrqLine& irq_;
  host::CharacterSink& sink_;
  Alarm alarm_;
};

}  // namespace stasis
