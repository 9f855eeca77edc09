// Running, saving and restoring a board: the conductor.
#include "machine/machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ranges>

#include "base/text.hpp"
#include "base/version.hpp"
#include "cpu/checks.hpp"
#include "host/host_clock.hpp"
#include "machine/board.hpp"
#include "machine/dirty_base.hpp"
#include "machine/processors.hpp"
#include "machine/releases.hpp"
#include "machine/staging.hpp"
#include "snapshot/format.hpp"

namespace stasis {
namespace {

using snapshot::PartRecord;
using state::Problems;

constexpr u64 kMostImageBytes = snapshot::kMostPartBytes - kMiB;  // the rest: command line and schema
constexpr u64 kInterruptFlag = 1 << 9;  // RFLAGS.IF

template <class S>
PartRecord record_of(std::string_view path, const S& value) {
  return {std::string(path), state::schema_of<S>(), state::save_record(value)};
}

// One error for all problems; each names its object, field, value and what is allowed.
std::unexpected<Error> refuse(const std::string& path, const Problems& problems) {
  std::string all;
  constexpr std::size_t kMostTold = 50;
  for (const Error& problem : problems | std::views::take(kMostTold))
    all += fmt::format("{}{}: {}", all.empty() ? "" : "\n  ", problem.object, problem.message);
  if (problems.size() > kMostTold) all += "\n  …";
  const std::string head = problems.size() == 1 ? "" : fmt::format("{} problems:\n  ", problems.size());
  const auto worst = std::ranges::find(problems, ErrorCode::bad_file, &Error::code);  // damage before what is only not offered here
  const Error& first = worst != problems.end() ? *worst : problems.front();
  return fail(first.code, "snapshot " + path, head + all, first.hint);
}

snapshot::Image image_of(const Board& board) {
  snapshot::Image image;
  image.machine = record_of(kMachinePath, board.config);
  image.parts.push_back(record_of(kContractPath, board.contract));
  image.parts.push_back(record_of(kImagesPath, board.images));
  for (const PlacedPart& placed : board.parts())
    image.parts.push_back({placed.path, placed.part->schema(), placed.part->capture()});
  image.ram_size = board.memory.size();
  return image;
}

// Parts whose shape changed since that release write it by their own code; the rest is the records' matter.
Result<> reshape_parts(const Board& board, snapshot::Image& image, const std::string& compat) {
  STASIS_TRY_SET(const state::Release* release, release_named(compat));
  Problems problems;
  for (const PlacedPart& placed : board.parts()) {
    state::ForRelease out = state::write_for_release(*release, placed.path, *placed.part, problems);
    const auto record = std::ranges::find(image.parts, placed.path, &PartRecord::path);
    if (out.outcome == state::ForRelease::written) record->schema = std::move(out.record.schema), record->state = std::move(out.record.value);
  }
  if (!problems.empty()) return refuse_release(compat, problems);
  return {};
}

// A mapped file is the RAM, and pages come in as they are touched; what is packed or in a child is brought in now.
Result<GuestMemory> memory_of(const snapshot::OpenSnapshot& saved) {
  const snapshot::OpenSnapshot& root = snapshot::root_of(saved);
  const bool mapped = root.ram.encoding == snapshot::Encoding::mapped;
  STASIS_TRY_SET(GuestMemory memory, mapped ? GuestMemory::map_file(root.file.get(), root.ram_offset, root.image.ram_size, root.nonzero)
                                            : GuestMemory::create(saved.image.ram_size));
  if (!mapped || saved.parent) STASIS_TRY(snapshot::load_ram(saved, memory.host(), mapped));
  return memory;
}

}  // namespace

Machine::Machine(std::unique_ptr<Board> board)
    : board_(std::move(board)), dirty_(std::make_unique<DirtyBase>(*board_->engine, board_->memory)) {}
Machine::~Machine() = default;

Result<std::unique_ptr<Machine>> Machine::boot(const MachineConfig& config, BootImages images, const MachineSinks& sinks,
                                               const EngineOptions& options) {
  if (const u64 size = images.kernel.size() + images.initrd.size(); size > kMostImageBytes)
    return fail(ErrorCode::usage, "machine", fmt::format("kernel and initrd have {} MiB, allowed are {} MiB, so that a snapshot can hold them",
                                                         size / kMiB, kMostImageBytes / kMiB), "use a smaller initrd");
  if (!is_utf8(images.cmdline))
    return fail(ErrorCode::usage, "cmdline", fmt::format("'{}' is not UTF-8", printable(images.cmdline)), "write it in UTF-8");
  STASIS_TRY_SET(ChosenEngine chosen, choose_engine(options));
  STASIS_TRY_SET(CpuContract contract, make_contract(options.cpu, {.cpus = config.cpus, .memory_bytes = config.memory_bytes, .tsc_hz = options.tsc_hz}, chosen.offer));
  STASIS_TRY_SET(GuestMemory memory, GuestMemory::create(config.memory_bytes));
  STASIS_TRY_SET(auto board, Board::make(config, std::move(contract), std::move(images), std::move(memory), sinks, std::move(chosen.kvm)));
  STASIS_TRY(board->start(true));
  STASIS_TRY(board->engine->load());
  auto machine = std::unique_ptr<Machine>(new Machine(std::move(board)));
  machine->engine_reason_ = std::move(chosen.why);
  return machine;
}

Result<std::unique_ptr<Machine>> Machine::restore(const std::string& path, const MachineSinks& sinks, const EngineOptions& options,
                                                  const snapshot::OpenOptions& open) {
  STASIS_TRY_SET(snapshot::OpenSnapshot saved, snapshot::open(path, open));
  return restore(std::move(saved), sinks, options);
}

Result<std::unique_ptr<Machine>> Machine::restore(snapshot::OpenSnapshot saved, const MachineSinks& sinks, const EngineOptions& options) {
  STASIS_TRY_SET(ChosenEngine chosen, choose_engine(options));
  Problems problems;
  auto [config, contract, images] = take_machine(saved.image, problems);
  if (problems.empty()) {
    check_contract(contract, chosen.offer, config.cpus, problems);
    Problems damage;  // told with the other parts' below
    Processors(saved.image, config.cpus, damage).check_for(chosen.offer, contract, problems);
  }
  if (!problems.empty()) return refuse(saved.path, problems);

  STASIS_TRY_SET(GuestMemory memory, memory_of(saved));
  STASIS_TRY_SET(auto board, Board::make(config, std::move(contract), std::move(images), std::move(memory), sinks, std::move(chosen.kvm)));
  const auto commits = stage_all(*board, saved.image, true, problems);
  if (!problems.empty()) return refuse(saved.path, problems);
  for (const auto& commit : commits) commit();
  board->settle();
  STASIS_TRY(board->engine->load());
  auto machine = std::unique_ptr<Machine>(new Machine(std::move(board)));
  machine->restored_from_ = saved.path;
  machine->engine_reason_ = std::move(chosen.why);
  machine->producer_ = saved.image.producer;
  machine->dirty_->restored(saved.root);
  machine->dirty_->name_restored(snapshot::hex(saved.ram.content));
  if (!machine->real_time()) STASIS_TRY(machine->track_writes());
  return machine;
}

MachineEvent Machine::run(u64 until_retired) {
  dirty_->changing();
  const StopReason reason = board_->engine->run(until_retired);
  if (board_->wanted != MachineEvent::none && board_->engine->held()) return std::exchange(board_->wanted, MachineEvent::none);
  switch (reason) {
    case StopReason::count: return MachineEvent::none;
    case StopReason::idle: return MachineEvent::idle;
    case StopReason::attention: return MachineEvent::attention;
    case StopReason::shutdown: return MachineEvent::crashed;
    case StopReason::failed: return MachineEvent::failed;
  }
  return MachineEvent::failed;
}

// An interrupt wakes only a vCPU that takes it: after CLI and HLT, guest time goes on beside a waiting one.
bool Machine::can_go_on() const {
  const VcpuState vcpu = board_->engine->get();
  if (vcpu.activity != Activity::halted) return vcpu.activity == Activity::running;
  return (board_->apic && board_->apic->deliverable() && vcpu.rflags & kInterruptFlag) || (vcpu.nmi_pending && !vcpu.nmi_blocked) || vcpu.pending.valid;
}

void Machine::advance_idle(u64 time) {
  dirty_->changing();
  Clock& clock = board_->clock;
  while (clock.now() < time && board_->wanted == MachineEvent::none && !can_go_on())
    clock.advance_to(std::min(time, std::max(clock.next_alarm(), clock.now())));
}

u64 Machine::next_alarm() const { return board_->clock.next_alarm(); }
u64 Machine::now() const { return board_->clock.now(); }
u64 Machine::retired() const { return board_->engine->retired(); }
void Machine::kick() { board_->engine->kick(); }
u32 Machine::debug_status() const { return board_->debug_status; }
std::string Machine::failure() const { return board_->engine->failure(); }
VcpuState Machine::vcpu(u32 number) const { return board_->engine->get(number); }
LocalApicState Machine::apic(u32 number) const { return board_->engine->get_apic(number); }
Result<> Machine::hold() { return board_->engine->hold(); }
bool Machine::real_time() const { return board_->engine->real_time(); }
void Machine::soon() { board_->engine->soon(); }

bool Machine::uart_can_receive(unsigned uart) const { return board_->uarts[uart]->can_receive(); }
void Machine::uart_receive(unsigned uart, u8 byte) { board_->uarts[uart]->receive(byte); }
void Machine::press_power_button() { board_->pm.press_power_button(); }
Result<> Machine::reset() {
  STASIS_TRY(hold());
  dirty_->changing();
  return board_->start(false);
}

const MachineConfig& Machine::config() const { return board_->config; }
std::string_view Machine::engine_name() const { return board_->engine->name(); }
const std::string& Machine::restored_from() const { return restored_from_; }
const snapshot::Producer& Machine::producer() const { return producer_; }

// `compat`: the release that shall read it; empty: this one.
Result<snapshot::Image> Machine::image_now(const snapshot::Producer* same_as, const std::string& compat) const {
  snapshot::Image image = image_of(*board_);
  image.producer = same_as ? *same_as
                           : snapshot::Producer{.program = "stasis", .version = std::string(version()),
                                                .created_at = host::wall_clock_text(), .uuid = snapshot::random_uuid()};
  if (!compat.empty()) {
    STASIS_TRY(reshape_parts(*board_, image, compat));
    STASIS_TRY(fit_to_release(image, compat));
  }
  return image;
}

// A guest may power itself off, reset or crash on the way to where it is held. That is in no record: the next run() tells.
Result<> Machine::check_goes_on() const {
  if (board_->wanted == MachineEvent::none && !board_->engine->ended()) return {};
  if (const std::string why = board_->engine->failure(); !why.empty()) return fail(ErrorCode::host, fmt::format("engine {}", board_->engine->name()), why);
  return fail(ErrorCode::state, "machine", "the guest has just powered off, reset or crashed", "let it go on, and save what becomes of it");
}

// What was written since the last file is collected before, and forgotten only when the new file is there.
Result<SaveReport> Machine::save_with(const snapshot::Producer* same_as, const std::string& compat, snapshot::SaveOptions options, const Writer& write) {
  STASIS_TRY(hold());
  STASIS_TRY(check_goes_on());
  dirty_->begin();
  if (options.parent && !options.dirty) {
    STASIS_TRY_SET(options.dirty, dirty_->since(snapshot::hex(options.parent->ram.content)));
  }
  STASIS_TRY_SET(const snapshot::Image image, image_now(same_as, compat));
  STASIS_TRY_SET(const std::vector<u64> pages, board_->memory.maybe_nonzero_pages());
  auto report = write(image, {board_->memory.host(), board_->memory.size(), pages}, options);
  if (report) dirty_->commit({report->root, report->digest});
  return report;
}

Result<SaveReport> Machine::save(const std::string& path, SaveProgress* progress, const snapshot::Producer* same_as,
                                 const snapshot::SaveOptions& options) {
  return save_with(same_as, "", options, [&](const snapshot::Image& image, const snapshot::RamSource& ram, const snapshot::SaveOptions& all) {
    return snapshot::save(path, image, ram, progress, all);
  });
}

Result<SaveReport> Machine::save(const PreparedSave& save, SaveProgress* progress) {
  return save_with(nullptr, save.request.compat, save.options, [&](const snapshot::Image& image, const snapshot::RamSource& ram, const snapshot::SaveOptions& all) {
    return save.request.stream ? snapshot::save_stream(save.stream.get(), save.request.path, image, ram, progress, all)
                               : snapshot::save(save.request.path, image, ram, progress, all);
  });
}

Result<std::string> Machine::digest() {
  STASIS_TRY(hold());
  STASIS_TRY_SET(const std::vector<u64> pages, board_->memory.maybe_nonzero_pages());
  return snapshot::digest(image_of(*board_), {board_->memory.host(), board_->memory.size(), pages});
}

Result<const std::vector<u64>*> Machine::dirty_since(const std::string& base) {
  STASIS_TRY(hold());
  return dirty_->since(base);
}

void Machine::name_restored_base(std::string digest) { dirty_->name_restored(std::move(digest)); }

Result<> Machine::track_writes() {
  STASIS_TRY(hold());
  return dirty_->start();
}

}  // namespace stasis
