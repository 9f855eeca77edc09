// The board's wiring and its parts' places.
#include "machine/board.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "cpu/checks.hpp"
#include "machine/acpi/tables.hpp"
#include "machine/board_map.hpp"
#include "machine/loader/loader.hpp"

namespace stasis {

state::Part::Commit ClockPart::stage(const cbor::Value& record, const state::LoadContext& context) {
  GuestClockState staged;
  if (!state::load_state(staged, record, context)) return {};
  return [this, staged] { clock_.restore(staged.now_ns); };
}

state::Part::Commit VcpuPart::stage(const cbor::Value& record, const state::LoadContext& context) {
  auto staged = std::make_shared<VcpuState>();
  if (!state::load_state(*staged, record, context)) return {};
  if (const std::string wrong = check_vcpu(*staged); !wrong.empty()) return context.refuse(wrong), Commit{};
  return [this, staged] { engine_.set(*staged, vcpu_); };
}

state::Part::Commit ApicPart::stage(const cbor::Value& record, const state::LoadContext& context) {
  auto staged = std::make_shared<LocalApicState>();
  if (!state::load_state(*staged, record, context)) return {};
  if (const std::string wrong = LocalApic::check_state(*staged, vcpu_); !wrong.empty()) return context.refuse(wrong), Commit{};
  return [this, staged] { engine_.set_apic(*staged, vcpu_); };
}

Board::Board(const MachineConfig& c, CpuContract k, BootImages i, GuestMemory m)
    : config(c),
      contract(std::move(k)),
      images(std::move(i)),
      memory(std::move(m)),
      wires([this](unsigned irq, bool level) { pic.set_irq(irq, level); },
            [this](unsigned gsi, bool level) { ioapic.set_irq(gsi, level); }),
      pic(pic_intr),
      messages(engine),
      ioapic(messages),
      pit(clock, pit_irq),
      rtc(clock, rtc_irq, config.start_time),
      hpet(clock, hpet_wires, messages),
      pm(clock, sci, *this),
      reset_control(*this),
      keyboard(*this, keyboard_irq),
      clock_part(clock) {}

Result<std::unique_ptr<Board>> Board::make(const MachineConfig& config, CpuContract contract, BootImages images, GuestMemory memory,
                                           const MachineSinks& sinks, std::optional<kvm::System> kvm) {
  std::unique_ptr<Board> board(new Board(config, std::move(contract), std::move(images), std::move(memory)));
  STASIS_TRY(board->make_engine(std::move(kvm)));
  board->make_devices(sinks);
  board->wire();
  board->fill_cmos();
  board->name_parts();
  return board;
}

Result<> Board::make_engine(std::optional<kvm::System> kvm) {
  if (kvm) {
    STASIS_TRY_SET(engine, kvm::KvmEngine::create(std::move(*kvm), {.memory = memory, .ports = ports, .mmio = mmio, .clock = clock,
                                                                    .pvclock = pvclock.live(), .contract = contract, .cpus = config.cpus, .start_time = config.start_time}));
  } else {
    apic = std::make_unique<LocalApic>(clock, 0, contract.tsc_hz);
    engine = make_soft_engine({memory, ports, mmio, clock, *apic, contract, &pvclock.live(), config.start_time});
  }
  for (u32 n = 0; n < config.cpus; ++n) {
    vcpu_parts.push_back(std::make_unique<VcpuPart>(*engine, n));
    if (!apic) apic_parts.push_back(std::make_unique<ApicPart>(*engine, n));
  }
  return {};
}

void Board::make_devices(const MachineSinks& sinks) {
  for (unsigned n = 0; n < 4; ++n) {
    host::CharacterSink* sink = sinks.uarts[n] ? sinks.uarts[n] : &unconnected;
    uarts[n] = std::make_unique<Uart>(clock, uart_irqs[n], *sink);
    uarts[n]->attach(ports, board::kUarts[n].port);
  }
  if (config.debug_console) debug_console = std::make_unique<DebugConsole>(sinks.debug_console ? *sinks.debug_console : unconnected);
  if (config.debug_exit) debug_exit = std::make_unique<DebugExit>(*this);
}

void Board::wire() {
  using When = Wires::When;
  wires.connect_isa(pit_irq, 0, When::without_legacy_replacement);
  wires.connect_isa(rtc_irq, 8, When::without_legacy_replacement);
  wires.connect_isa(hpet_wires.irq0, 0, When::with_legacy_replacement);
  wires.connect_isa(hpet_wires.irq8, 8, When::with_legacy_replacement);
  wires.connect_isa(keyboard_irq, 1);
  wires.connect_isa(sci, board::kSciIrq);
  for (unsigned n = 0; n < 4; ++n) wires.connect_isa(uart_irqs[n], board::kUarts[n].irq);
  for (unsigned n = 0; n < 4; ++n) wires.connect_pin(hpet_wires.pins[n], Hpet::kFirstPin + n);
  hpet.connect_legacy([this](bool active) { wires.set_legacy_replacement(active); });
  pic_intr.connect([this](bool level) { engine->set_intr(level); });
  engine->connect({.pic_acknowledge = [this] { return pic.acknowledge(); }, .eoi = [this](u8 vector) { ioapic.end_of_interrupt(vector); }});
  ioapic.connect_watcher([this](std::span<const u64> redirection) { engine->pins_changed(redirection); });
  pic.attach(ports);
  pit.attach(ports);
  rtc.attach(ports);
  keyboard.attach(ports);
  pm.attach(ports);
  reset_control.attach(ports);
  if (debug_console) debug_console->attach(ports);
  if (debug_exit) debug_exit->attach(ports);
  ioapic.attach(mmio);
  hpet.attach(mmio);
}

// Where firmware leaves the memory sizes in CMOS: base and extended in KiB, above 16 MiB and above 4 GiB in 64 KiB.
void Board::fill_cmos() {
  const auto put = [this](u8 index, u64 value, unsigned bytes) {
    for (unsigned n = 0; n < bytes; ++n) rtc.set_cmos(static_cast<u8>(index + n), static_cast<u8>(value >> (8 * n)));
  };
  const u64 low = std::min(config.memory_bytes, GuestMemory::kHoleStart);
  const u64 extended = std::min<u64>((low - kMiB) / kKiB, 0xffff);
  put(0x15, 640, 2);
  put(0x17, extended, 2);
  put(0x30, extended, 2);
  put(0x34, low > 16 * kMiB ? std::min<u64>((low - 16 * kMiB) / (64 * kKiB), 0xffff) : 0, 2);
  put(0x5b, (config.memory_bytes - low) / (64 * kKiB), 3);
}

// Paths name places and are for ever. The clock comes first: the checks of the others look at it.
void Board::name_parts() {
  parts_ = {{"clock", &clock_part}};
  for (u32 n = 0; n < config.cpus; ++n) {
    parts_.push_back({fmt::format("cpu/{}", n), vcpu_parts[n].get()});
    parts_.push_back({fmt::format("cpu/{}/apic", n), apic ? static_cast<state::Part*>(apic.get()) : apic_parts[n].get()});
  }
  parts_.push_back({"cpu/pvclock", &pvclock, true});
  const std::pair<const char*, state::Part*> chips[] = {
      {"device/acpi/pm", &pm}, {"device/hpet/0", &hpet}, {"device/ioapic/0", &ioapic}, {"device/isa/keyboard", &keyboard},
      {"device/isa/pic", &pic}, {"device/isa/pit", &pit}, {"device/isa/reset_control", &reset_control}, {"device/isa/rtc", &rtc}};
  for (const auto& [path, part] : chips) parts_.push_back({path, part});
  for (unsigned n = 0; n < 4; ++n) parts_.push_back({fmt::format("device/isa/uart{}", n), uarts[n].get()});
  if (debug_console) parts_.push_back({"device/isa/debug_console", debug_console.get()});
  if (debug_exit) parts_.push_back({"device/isa/debug_exit", debug_exit.get()});
}

Result<> Board::start(bool power_on) {
  wires.mute();
  for (const PlacedPart& placed : parts_) {
    if (placed.part == &rtc && !power_on) rtc.reset_pin();
    else placed.part->reset();
  }
  STASIS_TRY_SET(const u64 rsdp, write_acpi_tables(config, memory));
  STASIS_TRY_SET(LoadedKernel kernel, load_kernel(images, memory, rsdp));
  kernel.vcpu.retired = engine->retired();
  kernel.vcpu.tsc_offset = 0 - mul_div(clock.now(), contract.tsc_hz, kSecond);  // the TSC starts at zero
  for (const CpuidLeaf& leaf : contract.cpuid)
    if (leaf.leaf == 0x8000'0008 && kernel.vcpu.mtrr.mask[0])
      kernel.vcpu.mtrr.mask[0] |= (1ull << (leaf.eax & 0xff)) - (1ull << kLeastPhysicalBits);
  engine->set(kernel.vcpu);
  for (u32 n = 1; n < config.cpus; ++n)
    engine->set({.tsc_offset = kernel.vcpu.tsc_offset, .activity = Activity::wait_for_sipi}, n);
  // What firmware leaves behind: virtual wire mode, LINT0 for the 8259, LINT1 for NMI (MultiProcessor Specification, 3.6.2).
  LocalApicState bootstrap = engine->get_apic(0);
  bootstrap.svr = 0x1ff;
  bootstrap.lvt_lint0 = 0x700;
  bootstrap.lvt_lint1 = 0x400;
  engine->set_apic(bootstrap, 0);
  settle();
  wanted = MachineEvent::none;
  return {};
}

void Board::settle() {
  wires.mute();
  for (const PlacedPart& placed : parts_) placed.part->settle();
  wires.unmute();
}

}  // namespace stasis
