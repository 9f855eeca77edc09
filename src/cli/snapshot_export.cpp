// stasis snapshot export: a saved guest for other tools, as an ELF core, raw memory or JSON.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <memory>

#include "base/file_descriptor.hpp"
#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "cli/snapshot_file.hpp"
#include "cli/snapshot_json.hpp"
#include "cli/snapshot_view.hpp"
#include "inspect/elf_core.hpp"
#include "snapshot/publication.hpp"

namespace stasis::cli {
namespace {

struct ExportOptions {
  OpenWords open;
  std::string file, out, format;
  int vcpu = -1;
  bool json = false;
};

struct Exported {
  std::vector<std::string> paths;
  u64 bytes = 0;        // length of the first file
  std::string remarks;  // for people
  Json details = Json::object();
};

Result<> write_text(const snapshot::Publication& file, const std::string& text, const std::string& name) {
  return write_all(file.fd(), {reinterpret_cast<const u8*>(text.data()), text.size()}, name);
}

Result<Exported> export_json(const ExportOptions& options, const snapshot::OpenSnapshot& snapshot) {
  const std::string target = absolute_path(options.out), text = state_json(snapshot);
  STASIS_TRY_SET(auto file, snapshot::Publication::begin(target));
  STASIS_TRY(write_text(file, text, target));
  STASIS_TRY(file.publish());
  return Exported{{target}, text.size(), {}};
}

Result<Exported> export_raw(const ExportOptions& options, const snapshot::OpenSnapshot& snapshot) {
  const std::string target = absolute_path(options.out), state = target + ".json";
  STASIS_TRY_SET(const auto ram, load_ram(snapshot));
  const inspect::PhysicalMemory memory(ram.source());
  STASIS_TRY_SET(auto file, snapshot::Publication::begin(target));
  STASIS_TRY_SET(auto state_file, snapshot::Publication::begin(state));
  STASIS_TRY(write_text(state_file, state_json(snapshot), state));
  {
    ProgressLine progress("exporting");
    STASIS_TRY(inspect::write_ram(file.fd(), 0, memory, target, progress.get()));
  }
  STASIS_TRY(file.publish());
  STASIS_TRY(state_file.publish());
  Exported out{{target, state}, memory.size(), {}};
  Json ranges = Json::array();
  for (const auto& range : memory.ranges()) {
    ranges.push_back({{"address", range.address}, {"offset", range.offset}, {"bytes", range.size}});
    out.remarks += fmt::format("  physical {:#x} to {:#x} is at offset {:#x}\n", range.address, range.address + range.size - 1, range.offset);
  }
  out.details["ranges"] = std::move(ranges);
  return out;
}

Result<Exported> export_core(const ExportOptions& options, const snapshot::OpenSnapshot& snapshot) {
  const std::string target = absolute_path(options.out), object = object_of(snapshot);
  STASIS_TRY_SET(const auto vcpus, inspect::vcpus_of(snapshot.image, object));
  STASIS_TRY_SET(const auto vcpu, choose_vcpu(snapshot, options.vcpu));
  STASIS_TRY_SET(const auto ram, load_ram(snapshot));
  const inspect::PhysicalMemory memory(ram.source());
  Exported out{{target}, 0, {}};
  auto space = inspect::address_space_of(vcpu, memory, object);
  if (!space && space.error().code != ErrorCode::unsupported) return std::unexpected(space.error());
  // Its page tables are of a kind that is not read: then the core has physical addresses, and says so.
  if (!space) out.remarks += fmt::format("  only physical addresses: {}\n", space.error().message);
  const inspect::CorePlan plan = inspect::plan_core(vcpus, memory, space.value_or(inspect::AddressSpace{}));
  STASIS_TRY_SET(auto file, snapshot::Publication::begin(target));
  STASIS_TRY(write_all_at(file.fd(), plan.head, 0, target));
  {
    ProgressLine progress("exporting");
    STASIS_TRY(inspect::write_ram(file.fd(), plan.ram_offset, memory, target, progress.get()));
  }
  STASIS_TRY(file.publish());
  out.bytes = plan.file_bytes;
  out.remarks += fmt::format("  {} threads, {} segments; virtual addresses of cpu/{}", vcpus.size(), plan.segments, vcpu.number);
  if (space && space->levels) out.remarks += fmt::format(", physical ones from {:#x}", inspect::kPhysicalWindow);
  out.remarks += "\n";
  if (plan.left_out) out.remarks += fmt::format("  {} page tables that repeat, or are too many, were left out\n", plan.left_out);
  out.details = {{"threads", vcpus.size()}, {"segments", plan.segments}, {"left_out", plan.left_out}, {"vcpu", vcpu.number}, {"ram_offset", plan.ram_offset}};
  return out;
}

Result<> run(const ExportOptions& options) {
  STASIS_TRY_SET(const auto snapshot, open_snapshot(options.file, options.open));
  for (const std::string& target : {options.out, options.out + ".json"})
    if (snapshot::is_file_of(snapshot, target) && (target == options.out || options.format == "raw"))
      return fail(ErrorCode::usage, target, "is the snapshot that is exported, or an ancestor of it", "choose another name");
  const auto write = options.format == "json" ? export_json : options.format == "raw" ? export_raw : export_core;
  STASIS_TRY_SET(const Exported exported, write(options, snapshot));
  if (options.json) {
    Json out{{"format", options.format}, {"paths", exported.paths}, {"bytes", exported.bytes}};
    out.update(exported.details);
    return print(text_of(out)), Result<>{};
  }
  std::string text;
  for (const auto& path : exported.paths) text += (text.empty() ? "" : " and ") + path;
  return print(printable(fmt::format("{}: {}\n{}", text, human_bytes(exported.bytes), exported.remarks))), Result<>{};
}

}  // namespace

void add_snapshot_export(CLI::App& group, int& status) {
  auto* command = group.add_subcommand("export", "A saved guest for other tools: ELF core, raw memory, JSON");
  const auto options = std::make_shared<ExportOptions>();
  command->add_option("FILE", options->file, "The snapshot")->required();
  command->add_option("OUT", options->out, "The file to write; replaced as a whole when it is complete")->required();
  command->add_option("--format", options->format, "elf-core (for gdb and others), raw (OUT is RAM, OUT.json the state), json (the state)")
      ->required()
      ->check(CLI::IsMember({"elf-core", "raw", "json"}))
      ->option_text("elf-core|raw|json REQUIRED");
  command->add_option("--vcpu", options->vcpu, "elf-core: whose virtual addresses; default: the first vCPU in 64-bit mode")->check(CLI::NonNegativeNumber);
  add_open_options(*command, options->open);
  command->add_flag("--json", options->json, "What was written, for scripts; errors as JSON too");
  command->footer("Zero pages are holes in OUT, so it takes no more disk space than the guest uses.\n"
                  "Examples:\n"
                  "  stasis snapshot export web.stasis --format elf-core web.core && gdb -core web.core\n"
                  "  stasis snapshot export web.stasis --format raw web.ram\n"
                  "  stasis snapshot export web.stasis --format json web.json && jq '.parts[].path' web.json");
  command->callback([options, &status] {
    const auto done = run(*options);
    if (done) return;
    print_error(done.error(), options->json);
    status = status_of(done.error());
  });
}

}  // namespace stasis::cli
