// The PC's two cascaded interrupt controllers: Intel 8259A (order 231468), with the ELCR of the 82371 (PIIX) datasheet.
// The slave's INT is wired to the master's IR2; ICW3 only repeats that wiring and is not used, nor is LTIM (the ELCR rules).
#pragma once

#include <array>
#include <string>

#include "bus/irq_line.hpp"
#include "bus/port_bus.hpp"
#include "state/part.hpp"

namespace stasis {

enum class PicExpects : u8 { operation, icw2, icw3, icw4 };  // what the next write of the odd port is
inline constexpr std::array<std::string_view, 4> kPicExpectsNames{"operation", "icw2", "icw3", "icw4"};

struct PicState {  // one 8259A
  u8 requests = 0;         // IRR of edge-triggered inputs: edges latched and not yet acknowledged
  u8 in_service = 0;       // ISR
  u8 mask = 0xff;          // IMR; the datasheet leaves power-on open, we start quiet
  u8 pins = 0;             // input levels last seen
  u8 level_triggered = 0;  // ELCR
  u8 vector_base = 0;
  u8 lowest_priority = 7;
  PicExpects expects = PicExpects::operation;
  bool single = false;      // ICW1.SNGL: no ICW3 follows
  bool wants_icw4 = false;  // ICW1.IC4
  bool auto_eoi = false;
  bool rotate_on_auto_eoi = false;
  bool special_mask = false;
  bool special_fully_nested = false;
  bool poll = false;             // the next read acknowledges
  bool read_in_service = false;  // the even port reads ISR, else IRR

  static constexpr auto layout() {
    using S = PicState;
    using state::field;
    return state::Layout(
        "intel.8259", 1, field<&S::requests>("requests").hex(), field<&S::in_service>("in_service").hex(),
        field<&S::mask>("mask").hex(), field<&S::pins>("pins").hex(),
        field<&S::level_triggered>("level_triggered").hex().help("ELCR"),
        field<&S::vector_base>("vector_base").hex().allow(0xf8),
        field<&S::lowest_priority>("lowest_priority").range(0, 7), field<&S::expects>("expects").names(kPicExpectsNames),
        field<&S::single>("single"), field<&S::wants_icw4>("wants_icw4"), field<&S::auto_eoi>("auto_eoi"),
        field<&S::rotate_on_auto_eoi>("rotate_on_auto_eoi"), field<&S::special_mask>("special_mask"),
        field<&S::special_fully_nested>("special_fully_nested"), field<&S::poll>("poll"),
        field<&S::read_in_service>("read_in_service"));
  }
};

struct DualPicState {
  std::array<PicState, 2> chip{};  // master, slave

  static constexpr auto layout() {
    return state::Layout("intel.8259_pair", 1, state::field<&DualPicState::chip>("chip"));
  }
};

class DualPic final : public state::Stateful<DualPicState>, public PortDevice {
 public:
  explicit DualPic(IrqLine& intr);
  void attach(PortBus& bus);  // 0x20-0x21, 0xA0-0xA1, 0x4D0-0x4D1

  void set_irq(unsigned irq, bool level);  // 0-15; 2 is the cascade and does nothing
  u8 acknowledge();                        // the INTA cycle: the vector, spurious 7 or 15 when nobody asks any more

  u32 port_read(u16 port, unsigned size) override;
  void port_write(u16 port, unsigned size, u32 value) override;
  void settle() override;

 private:
  std::string check(const DualPicState& staged) const override;
  void changed();  // carries the slave's INT to the master, then settles
  u8 poll(bool slave);

  IrqLine& intr_;
};

}  // namespace stasis
