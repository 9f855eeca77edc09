// What a machine is made of: enough to build the same board again. Saved in every snapshot.
#pragma once

#include "base/error.hpp"
#include "state/codec.hpp"

namespace stasis {

struct MachineConfig {
  u64 memory_bytes = 512 * kMiB;
  u32 cpus = 1;
  bool debug_console = false;  // port 0xE9
  bool debug_exit = false;     // port 0xF4
  u64 start_time = 0;          // what the RTC shows at power-on, seconds since 1970-01-01 UTC
  static constexpr auto layout() {
    using S = MachineConfig;
    return state::Layout("stasis.machine", 1,
                         state::field<&S::memory_bytes>("memory_bytes").unit("bytes").range(kMiB, 1024 * kGiB),
                         state::field<&S::cpus>("cpus").range(1, 16), state::field<&S::debug_console>("debug_console"),
                         state::field<&S::debug_exit>("debug_exit"), state::field<&S::start_time>("start_time").unit("s"));
  }
};

// What the board starts after power-on and after each reset; the machine's firmware, so to say. Saved too, so
// that a resumed guest can reboot with no file at hand.
struct BootImages {
  std::vector<u8> kernel{};  // bzImage, ELF vmlinux; as read from its file
  std::vector<u8> initrd{};
  std::string cmdline{};
  static constexpr auto layout() {
    using S = BootImages;
    return state::Layout("stasis.direct_boot", 1, state::field<&S::kernel>("kernel"), state::field<&S::initrd>("initrd"),
                         state::field<&S::cmdline>("cmdline").range(0, 4095));
  }
};

}  // namespace stasis
