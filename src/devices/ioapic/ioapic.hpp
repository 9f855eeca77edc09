// I/O APIC: 24 pins, each with a redirection entry that says which message its signal becomes.
// Intel 82093AA datasheet, 3.0; version 0x20 adds the EOI register (ICH9 datasheet, 13.5).
//
// A pin's level means "asserted", whichever voltage that is: the board wires every line with the polarity that
// the firmware tables declare, so the polarity bit is kept and read back, and inverts nothing.
#pragma once

#include <functional>
#include <span>

#include "bus/irq_line.hpp"
#include "bus/mmio_bus.hpp"
#include "state/part.hpp"

namespace stasis {

struct IoApicState {
  u8 id = 0;
  u8 ioregsel = 0;
  std::array<u64, 24> redirection = all_masked();
  u32 pins = 0;  // levels last seen

  static constexpr u64 kMasked = 1u << 16, kLevel = 1u << 15, kRemoteIrr = 1u << 14;
  static constexpr u64 kSoftwareBits = 0xff00'0000'0001'afff;
  static constexpr std::array<u64, 24> all_masked() {
    std::array<u64, 24> entries{};
    entries.fill(kMasked);
    return entries;
  }
  static constexpr auto layout() {
    using S = IoApicState;
    return state::Layout("intel.ioapic", 1, state::field<&S::id>("id").range(0, 15),
                         state::field<&S::ioregsel>("ioregsel").hex(),
                         state::field<&S::redirection>("redirection").hex().allow(kSoftwareBits | kRemoteIrr),
                         state::field<&S::pins>("pins").hex().allow(0xff'ffff).help("levels last seen"));
  }
};

class IoApic final : public state::Stateful<IoApicState>, public MmioDevice {
 public:
  static constexpr u64 kBase = 0xfec0'0000, kSize = 0x1000;
  static constexpr unsigned kPins = 24;

  explicit IoApic(MessageSink& messages) : messages_(messages) {}
  void attach(MmioBus& bus) { bus.map(kBase, kSize, *this, 4); }

  // Told of the redirection entries after each change, and in settle().
  void connect_watcher(std::function<void(std::span<const u64>)> watcher) { watcher_ = std::move(watcher); }
  void settle() override { tell(); }

  void set_irq(unsigned pin, bool level);
  void end_of_interrupt(u8 vector);  // broadcast by a local APIC, or written to the EOI register

  u64 mmio_read(u64 offset, unsigned size) override;
  void mmio_write(u64 offset, unsigned size, u64 value) override;

 private:
  std::string check(const IoApicState& staged) const override;
  u32 read_register() const;
  void write_register(u32 value);
  void sense(unsigned pin);  // a level-triggered pin that is asserted and unmasked sends, once until its EOI
  void send(u64 entry);
  void tell() const { if (watcher_) watcher_(s_.redirection); }

  MessageSink& messages_;
  std::function<void(std::span<const u64>)> watcher_;
};

}  // namespace stasis
