// What a board's glue may ask of the whole machine; the machine decides at the next instruction boundary.
#pragma once

#include "base/types.hpp"

namespace stasis {

class SystemControl {
 public:
  virtual ~SystemControl() = default;
  virtual void request_reset() = 0;          // keyboard controller, port 0xCF9, ACPI reset register
  virtual void request_poweroff() = 0;       // ACPI S5
  virtual void request_debug_exit(u32 status) = 0;  // --debug-exit; status as written
  virtual void set_a20(bool open) = 0;       // address bit 20 passes (true) or is forced to zero
};

}  // namespace stasis
