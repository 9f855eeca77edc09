// Records into structs and parts, with every problem told.
#include "machine/staging.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "machine/board.hpp"

namespace stasis {
namespace {

using snapshot::PartRecord;
using state::LoadContext;
using state::Problems;

template <class S>
void load_struct(S& out, const PartRecord& record, Problems& problems) {
  const LoadContext context{.object = record.path, .version = record.schema.version, .problems = problems, .schema = &record.schema};
  (void)load_of_kind(out, record, context);
}

const PartRecord* find_record(const snapshot::Image& image, std::string_view path) {
  const auto found = std::ranges::find(image.parts, path, &PartRecord::path);
  return found == image.parts.end() ? nullptr : &*found;
}

}  // namespace

SavedMachine load_machine(const snapshot::Image& image, Problems& problems) {
  SavedMachine out;
  load_struct(out.config, image.machine, problems);
  const PartRecord *contract = find_record(image, kContractPath), *images = find_record(image, kImagesPath);
  if (contract) load_struct(out.contract, *contract, problems);
  if (images && !images->left_out) load_struct(out.images, *images, problems);
  if (!contract || !images)
    problems.push_back({ErrorCode::bad_file, std::string(contract ? kImagesPath : kContractPath), "its record is missing", kDamagedOrNotOurs});
  if (problems.empty() && out.config.memory_bytes != image.ram_size)
    problems.push_back({ErrorCode::bad_file, "machine",
                        fmt::format("memory_bytes is {}, but the file holds {} bytes of RAM", out.config.memory_bytes, image.ram_size), kDamagedOrNotOurs});
  return out;
}

SavedMachine take_machine(snapshot::Image& image, Problems& problems) {
  cbor::ByteString kernel, initrd;
  const auto record = std::ranges::find(image.parts, kImagesPath, &PartRecord::path);
  if (auto* map = record == image.parts.end() ? nullptr : record->state.as<cbor::Map>())
    for (auto& [name, value] : map->members())
      if (auto* bytes = value.as<cbor::ByteString>()) {
        if (name == "kernel") kernel.swap(*bytes);
        if (name == "initrd") initrd.swap(*bytes);
      }
  SavedMachine out = load_machine(image, problems);
  out.images.kernel = std::move(kernel);
  out.images.initrd = std::move(initrd);
  return out;
}

std::optional<ProcessorPath> processor_path(std::string_view path) {
  if (!path.starts_with("cpu/")) return {};
  path.remove_prefix(4);
  ProcessorPath out;
  const auto [end, error] = std::from_chars(path.data(), path.data() + path.size(), out.number);
  if (error != std::errc()) return {};
  const std::string_view rest(end, static_cast<std::size_t>(path.data() + path.size() - end));
  out.apic = rest == "/apic";
  if (!rest.empty() && !out.apic) return {};
  return out;
}

std::vector<state::Part::Commit> stage_all(Board& board, const snapshot::Image& image, bool processors, Problems& problems) {
  std::vector<state::Part::Commit> commits;
  std::map<std::string_view, const PartRecord*> left;
  const auto skipped = [&](std::string_view path) { return !processors && processor_path(path); };
  for (const PartRecord& record : image.parts)
    if (record.path != kContractPath && record.path != kImagesPath && !skipped(record.path)) left.emplace(record.path, &record);
  for (const PlacedPart& placed : board.parts()) {
    const auto found = left.find(placed.path);
    if ((found == left.end() && placed.may_be_missing) || skipped(placed.path)) continue;
    if (found == left.end()) {
      problems.push_back({ErrorCode::bad_file, placed.path, "its record is missing", kDamagedOrNotOurs});
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

}  // namespace stasis
