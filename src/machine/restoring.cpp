// Parsing and checking the records of a machine.
#include "machine/restoring.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <ranges>

#include "cpu/checks.hpp"

namespace stasis {

using snapshot::PartRecord;
using state::LoadContext;
using state::Problems;

namespace {

constexpr const char* kDamaged = "the file is damaged or not ours";

template <class S>
void load_struct(S& out, const PartRecord& record, Problems& problems) {
  const LoadContext context{.object = record.path, .version = record.schema.version, .problems = problems};
  if (record.schema.kind != S::layout().kind)
    return context.refuse(fmt::format("kind is {}, wanted is {}", record.schema.kind, S::layout().kind));
  state::load_record(out, record.state, "", context);
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

}  // namespace

std::unexpected<Error> refuse_restore(const std::string& path, const Problems& problems) {
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

SavedBoard parse_board(snapshot::OpenSnapshot& saved, const CpuOffer& offer, Problems& problems) {
  snapshot::Image& image = saved.image;
  SavedBoard out;
  load_struct(out.config, image.machine, problems);
  PartRecord *contract = find_record(image, kContractPath), *images = find_record(image, kImagesPath);
  if (contract) load_struct(out.contract, *contract, problems);
  if (images && !images->left_out) load_images(out.images, *images, problems);
  if (!contract || !images)
    problems.push_back({ErrorCode::bad_file, std::string(contract ? kImagesPath : kContractPath), "its record is missing", kDamaged});
  if (problems.empty() && out.config.memory_bytes != image.ram_size)
    problems.push_back({ErrorCode::bad_file, "machine",
                        fmt::format("memory_bytes is {}, but the file holds {} bytes of RAM", out.config.memory_bytes, image.ram_size), kDamaged});
  if (problems.empty()) check_contract(out.contract, offer, out.config.cpus, problems);
  return out;
}

Result<GuestMemory> memory_of(const snapshot::OpenSnapshot& saved) {
  const snapshot::OpenSnapshot& root = snapshot::root_of(saved);
  const bool mapped = root.ram.encoding == snapshot::Encoding::mapped;
  STASIS_TRY_SET(GuestMemory memory, mapped ? GuestMemory::map_file(root.file.get(), root.ram_offset, root.image.ram_size, root.nonzero)
                                            : GuestMemory::create(saved.image.ram_size));
  if (!mapped || saved.parent) STASIS_TRY(snapshot::load_ram(saved, memory.host(), mapped));
  return memory;
}

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
    const LoadContext context{.object = record.path, .version = record.schema.version, .problems = problems};
    const std::string kind = placed.part->schema().kind;
    if (record.schema.kind != kind) context.refuse(fmt::format("kind is {}, wanted is {}", record.schema.kind, kind));
    else if (auto commit = placed.part->stage(record.state, context)) commits.push_back(std::move(commit));
    if (placed.part == &board.clock_part && problems.empty()) commits.back()();
  }
  for (const auto& [path, record] : left)
    problems.push_back({ErrorCode::unsupported, std::string(path), fmt::format("kind {} is not known here", record->schema.kind),
                        "the snapshot needs a newer Stasis"});
  return commits;
}

namespace {

// Where another engine of this host would take the contract, that is the cure.
void name_the_cure(const SavedBoard& parsed, const ChosenEngine& chosen, Problems& problems) {
  if (!chosen.kvm || problems.empty()) return;
  Problems with_soft;
  check_contract(parsed.contract, soft_offer(), parsed.config.cpus, with_soft);
  if (!with_soft.empty()) return;
  for (Error& problem : problems)
    if (problem.object == kContractPath) problem.hint = "resume it with --engine soft";
}

}  // namespace

Problems resume_problems(snapshot::OpenSnapshot& saved, const EngineOptions& options) {
  Problems problems;
  auto chosen = choose_engine(options);
  if (!chosen) return {chosen.error()};
  SavedBoard parsed = parse_board(saved, chosen->offer, problems);
  name_the_cure(parsed, *chosen, problems);
  if (!problems.empty()) return problems;
  auto memory = GuestMemory::create(saved.image.ram_size);
  if (!memory) return {memory.error()};
  auto board = Board::make(parsed.config, std::move(parsed.contract), std::move(parsed.images), std::move(*memory), {}, std::move(chosen->kvm));
  if (!board) return {board.error()};
  (void)stage_all(**board, saved.image, problems);
  return problems;
}

}  // namespace stasis
