// Running, saving and restoring a board: the conductor.
#include "machine/machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <ranges>

#include "base/text.hpp"
#include "base/version.hpp"
#include "cpu/checks.hpp"
#include "host/host_clock.hpp"
#include "machine/board.hpp"
#include "snapshot/format.hpp"

namespace stasis {
namespace {

using snapshot::PartRecord;
using state::LoadContext;
using state::Problems;

constexpr u64 kMostImageBytes = snapshot::kMostPartBytes - kMiB;  // the rest: command line and schema
constexpr u64 kInterruptFlag = 1 << 9;  // RFLAGS.IF
constexpr const char* kDamaged = "the file is damaged or not ours";
constexpr std::string_view kMachinePath = "machine", kContractPath = "cpu/contract", kImagesPath = "machine/boot";

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

template <class S>
void load_struct(S& out, const PartRecord& record, Problems& problems) {
  const LoadContext context{.object = record.path, .version = record.schema.version, .problems = problems, .schema = &record.schema};
  if (record.schema.kind != S::layout().kind)
    return context.refuse(fmt::format("kind is {}, wanted is {}", record.schema.kind, S::layout().kind));
  state::load_state(out, record.state, context);
}

// Kernel and initrd are large: they are moved out of their record, not copied.
void load_images(BootImages& out, PartRecord& record, Problems& problems) {
  cbor::ByteString kernel, initrd;
  if (auto* map = record.state.as<cbor::Map>())
    for (auto& [name, value] : map->members())
      if (auto* bytes = value.as<cbor::ByteString>()) {
        if (name == "kernel") kernel.swap(*bytes);
        if (name == "initrd") initrd.swap(*bytes);
      }
  load_struct(out, record, problems);
  out.kernel = std::move(kernel);
  out.initrd = std::move(initrd);
}

PartRecord* find_record(snapshot::Image& image, std::string_view path) {
  for (PartRecord& record : image.parts)
    if (record.path == path) return &record;
  return nullptr;
}

// ISO 8601, UTC.
std::string time_text(u64 seconds) {
  const std::time_t when = static_cast<std::time_t>(seconds);
  std::tm parts{};
  ::gmtime_r(&when, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
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

// Pass one of a restore: every record is parsed aside and checked; nothing of the board changes but its clock,
// which the parts' checks look at.
std::vector<state::Part::Commit> stage_all(Board& board, const snapshot::Image& image, Problems& problems) {
  std::vector<state::Part::Commit> commits;
  std::map<std::string_view, const PartRecord*> left;
  for (const PartRecord& record : image.parts)
    if (record.path != kContractPath && record.path != kImagesPath) left.emplace(record.path, &record);
  for (const PlacedPart& placed : board.parts()) {
    const auto found = left.find(placed.path);
    if (found == left.end() && placed.may_be_missing) continue;
    if (found == left.end()) {
      problems.push_back({ErrorCode::bad_file, placed.path, "its record is missing", kDamaged});
      continue;
    }
    const PartRecord& record = *found->second;
    left.erase(found);
    const LoadContext context{.object = record.path, .version = record.schema.version, .problems = problems, .schema = &record.schema};
    const std::string kind = placed.part->schema().kind;
    if (record.schema.kind != kind) context.refuse(fmt::format("kind is {}, wanted is {}", record.schema.kind, kind));
    else if (auto commit = placed.part->stage(record.state, context)) commits.push_back(std::move(commit));
    if (placed.part == &board.clock_part && problems.empty()) commits.back()();
  }
  for (const auto& [path, record] : left)
    if (!record->schema.skippable) problems.push_back({ErrorCode::unsupported, std::string(path), fmt::format("kind {} is not known here", record->schema.kind),
                        "the snapshot needs a newer Stasis"});
  return commits;
}

}  // namespace

Machine::Machine(std::unique_ptr<Board> board) : board_(std::move(board)) {}
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

Result<std::unique_ptr<Machine>> Machine::restore(const std::string& path, const MachineSinks& sinks, const EngineOptions& options) {
  STASIS_TRY_SET(ChosenEngine chosen, choose_engine(options));
  STASIS_TRY_SET(snapshot::OpenSnapshot saved, snapshot::open(path));
  snapshot::Image& image = saved.image;
  Problems problems;
  MachineConfig config;
  CpuContract contract;
  BootImages images;
  load_struct(config, image.machine, problems);
  PartRecord *contract_record = find_record(image, kContractPath), *images_record = find_record(image, kImagesPath);
  if (contract_record) load_struct(contract, *contract_record, problems);
  if (images_record) load_images(images, *images_record, problems);
  if (!contract_record || !images_record)
    problems.push_back({ErrorCode::bad_file, std::string(contract_record ? kImagesPath : kContractPath), "its record is missing", kDamaged});
  if (problems.empty() && config.memory_bytes != image.ram_size)
    problems.push_back({ErrorCode::bad_file, "machine",
                        fmt::format("memory_bytes is {}, but the file holds {} bytes of RAM", config.memory_bytes, image.ram_size), kDamaged});
  if (problems.empty()) check_contract(contract, chosen.offer, config.cpus, problems);
  if (!problems.empty()) return refuse(path, problems);

  STASIS_TRY_SET(GuestMemory memory, GuestMemory::map_file(saved.file.get(), saved.ram_offset, image.ram_size, saved.nonzero));
  STASIS_TRY_SET(auto board, Board::make(config, std::move(contract), std::move(images), std::move(memory), sinks, std::move(chosen.kvm)));
  const auto commits = stage_all(*board, image, problems);
  if (!problems.empty()) return refuse(path, problems);
  for (const auto& commit : commits) commit();
  board->settle();
  STASIS_TRY(board->engine->load());
  auto machine = std::unique_ptr<Machine>(new Machine(std::move(board)));
  machine->restored_from_ = path;
  machine->engine_reason_ = std::move(chosen.why);
  machine->producer_ = image.producer;
  return machine;
}

MachineEvent Machine::run(u64 until_retired) {
  const StopReason reason = board_->engine->run(until_retired);
  if (board_->wanted != MachineEvent::none) return std::exchange(board_->wanted, MachineEvent::none);
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
  return board_->start(false);
}

const MachineConfig& Machine::config() const { return board_->config; }
std::string_view Machine::engine_name() const { return board_->engine->name(); }
const std::string& Machine::restored_from() const { return restored_from_; }
const snapshot::Producer& Machine::producer() const { return producer_; }

Result<SaveReport> Machine::save(const std::string& path, SaveProgress* progress, const snapshot::Producer* same_as) {
  STASIS_TRY(hold());
  snapshot::Image image = image_of(*board_);
  image.producer = same_as ? *same_as
                           : snapshot::Producer{.program = "stasis", .version = std::string(version()),
                                                .created_at = time_text(host::wall_clock_seconds()), .uuid = snapshot::random_uuid()};
  STASIS_TRY_SET(const std::vector<u64> pages, board_->memory.maybe_nonzero_pages());
  return snapshot::save(path, image, {board_->memory.host(), board_->memory.size(), pages}, progress);
}

Result<std::string> Machine::digest() {
  STASIS_TRY(hold());
  STASIS_TRY_SET(const std::vector<u64> pages, board_->memory.maybe_nonzero_pages());
  return snapshot::digest(image_of(*board_), {board_->memory.host(), board_->memory.size(), pages});
}

}  // namespace stasis
