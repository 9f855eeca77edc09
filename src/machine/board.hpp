// The board: every part of a machine, wired. Knows each part's stable path; machine.cpp runs and saves it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bus/system_control.hpp"
#include "cpu/engine.hpp"
#include "cpu/kvm/engine.hpp"
#include "devices/acpi/pm.hpp"
#include "devices/acpi/reset_control.hpp"
#include "devices/debug/debug_console.hpp"
#include "devices/debug/debug_exit.hpp"
#include "devices/hpet/hpet.hpp"
#include "devices/i8042/keyboard_controller.hpp"
#include "devices/i8254/pit.hpp"
#include "devices/i8259/dual_pic.hpp"
#include "devices/ioapic/ioapic.hpp"
#include "devices/mc146818/rtc.hpp"
#include "devices/uart16550/uart.hpp"
#include "machine/config.hpp"
#include "machine/machine.hpp"
#include "machine/wires.hpp"

namespace stasis {

// Interrupt messages on their way to the engine, which is made after the board.
class MessageRelay final : public MessageSink {
 public:
  explicit MessageRelay(const std::unique_ptr<Engine>& engine) : engine_(engine) {}
  void deliver(u64 address, u32 data) override { engine_->messages().deliver(address, data); }

 private:
  const std::unique_ptr<Engine>& engine_;
};

struct GuestClockState {
  u64 now_ns = 0;
  static constexpr auto layout() {
    using S = GuestClockState;
    return state::Layout("stasis.guest_clock", 1,
                         state::field<&S::now_ns>("now_ns").unit("ns").range(0, 1ull << 62).help("guest time since power-on"));
  }
};

// The guest clock and the vCPU keep their state elsewhere: these lend them a Part's face.
class ClockPart final : public state::Part {
 public:
  explicit ClockPart(Clock& clock) : clock_(clock) {}
  state::Schema schema() const override { return state::schema_of<GuestClockState>(); }
  cbor::Value capture() const override { return state::save_record(GuestClockState{clock_.now()}); }
  std::optional<state::Written> capture_for(u16 version, const std::string& object, state::Problems& problems) const override {
    return state::save_for(GuestClockState{clock_.now()}, version, object, problems);
  }
  Commit stage(const cbor::Value& record, const state::LoadContext& context) override;
  void reset() override {}
  void settle() override {}

 private:
  Clock& clock_;
};

class VcpuPart final : public state::Part {
 public:
  VcpuPart(Engine& engine, u32 vcpu) : engine_(engine), vcpu_(vcpu) {}
  state::Schema schema() const override { return state::schema_of<VcpuState>(); }
  cbor::Value capture() const override { return state::save_record(engine_.get(vcpu_)); }
  std::optional<state::Written> capture_for(u16 version, const std::string& object, state::Problems& problems) const override {
    return state::save_for(engine_.get(vcpu_), version, object, problems);
  }
  Commit stage(const cbor::Value& record, const state::LoadContext& context) override;
  void reset() override {}  // the loader sets the first state
  void settle() override {}

 private:
  Engine& engine_;
  const u32 vcpu_;
};

// The local APIC of an engine that has its own. The soft engine's is a part itself.
class ApicPart final : public state::Part {
 public:
  ApicPart(Engine& engine, u32 vcpu) : engine_(engine), vcpu_(vcpu) {}
  state::Schema schema() const override { return state::schema_of<LocalApicState>(); }
  cbor::Value capture() const override { return state::save_record(engine_.get_apic(vcpu_)); }
  std::optional<state::Written> capture_for(u16 version, const std::string& object, state::Problems& problems) const override {
    return state::save_for(engine_.get_apic(vcpu_), version, object, problems);
  }
  Commit stage(const cbor::Value& record, const state::LoadContext& context) override;
  void reset() override { engine_.set_apic(LocalApic::power_on(vcpu_), vcpu_); }
  void settle() override {}

 private:
  Engine& engine_;
  const u32 vcpu_;
};

class PvclockPart final : public state::Stateful<PvclockState> {
 public:
  PvclockState& live() { return s_; }
};

struct PlacedPart {
  std::string path;
  state::Part* part;
  bool may_be_missing = false;  // files from before it was: it keeps its power-on state
};

class Board final : public SystemControl {
 public:
  // `kvm`: none means the soft engine.
  static Result<std::unique_ptr<Board>> make(const MachineConfig& config, CpuContract contract, BootImages images, GuestMemory memory,
                                             const MachineSinks& sinks, std::optional<kvm::System> kvm);

  // Power-on or reset: resets every part (not the RTC, which has its battery, unless `power_on`), loads the kernel.
  Result<> start(bool power_on);
  // After a restore: everything derived is derived again; nobody sees an edge.
  void settle();
  const std::vector<PlacedPart>& parts() const { return parts_; }

  void request_reset() override { ask(MachineEvent::reset); }
  void request_poweroff() override { ask(MachineEvent::power_off); }
  void request_debug_exit(u32 status) override {
    debug_status = status;
    ask(MachineEvent::debug_exit);
  }
  void set_a20(bool open) override { engine->set_a20(open); }

  const MachineConfig config;
  const CpuContract contract;
  const BootImages images;
  GuestMemory memory;
  MachineEvent wanted = MachineEvent::none;  // what a device asked for
  u32 debug_status = 0;

  Clock clock;
  PortBus ports;
  MmioBus mmio;
  PvclockPart pvclock;
  std::unique_ptr<LocalApic> apic;  // the soft engine's
  std::unique_ptr<Engine> engine;
  Wires wires;
  IrqLine pic_intr, pit_irq, rtc_irq, keyboard_irq, sci, uart_irqs[4];
  HpetWires hpet_wires;
  DualPic pic;
  MessageRelay messages;
  IoApic ioapic;
  Pit pit;
  Rtc rtc;
  Hpet hpet;
  AcpiPm pm;
  ResetControl reset_control;
  KeyboardController keyboard;
  host::NullCharacterSink unconnected;
  std::unique_ptr<Uart> uarts[4];
  std::unique_ptr<DebugConsole> debug_console;
  std::unique_ptr<DebugExit> debug_exit;
  ClockPart clock_part;
  std::vector<std::unique_ptr<VcpuPart>> vcpu_parts;
  std::vector<std::unique_ptr<ApicPart>> apic_parts;

 private:
  Board(const MachineConfig& config, CpuContract contract, BootImages images, GuestMemory memory);
  Result<> make_engine(std::optional<kvm::System> kvm);
  void make_devices(const MachineSinks& sinks);
  void ask(MachineEvent event) {
    wanted = event;
    engine->attention();
  }
  void wire();
  void fill_cmos();
  void name_parts();
  std::vector<PlacedPart> parts_;
};

}  // namespace stasis
