// stasis snapshot diff: what differs between two snapshots, by field and by page.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <memory>

#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "cli/snapshot_file.hpp"
#include "cli/snapshot_json.hpp"
#include "inspect/ram_diff.hpp"
#include "inspect/record_diff.hpp"

namespace stasis::cli {
namespace {

constexpr std::size_t kRangesShown = 100, kFieldsShown = 500, kNamesShown = 6;

struct DiffOptions {
  OpenWords open;
  std::string a, b, symbols;
  int vcpu = -1;
  bool no_ram = false, all = false, json = false;
};

struct Diff {
  inspect::RecordDiff records;
  inspect::RamDiff ram;
  std::vector<inspect::SymbolChange> symbols;
  bool equal() const { return records.equal() && ram.equal(); }
};

Bytes digests_of(const snapshot::OpenSnapshot& snapshot) { return snapshot.chunk_digests; }

Result<inspect::KernelView> kernel_of(const snapshot::OpenSnapshot& snapshot, const inspect::PhysicalMemory& memory, const inspect::Symbols& symbols, int vcpu) {
  STASIS_TRY_SET(const inspect::Vcpu chosen, choose_vcpu(snapshot, vcpu));
  STASIS_TRY_SET(const inspect::AddressSpace space, inspect::address_space_of(chosen, memory, object_of(snapshot)));
  const auto slide = inspect::slide_of(symbols, memory, space);
  return inspect::KernelView{memory, space, slide.value_or(0)};
}

Result<> compare_ram(const DiffOptions& options, const snapshot::OpenSnapshot& a, const snapshot::OpenSnapshot& b, Diff& out) {
  STASIS_TRY_SET(const auto ram_a, load_ram(a));
  STASIS_TRY_SET(const auto ram_b, load_ram(b));
  const inspect::RamSide side_a{inspect::PhysicalMemory(ram_a.source()), digests_of(a)}, side_b{inspect::PhysicalMemory(ram_b.source()), digests_of(b)};
  ProgressLine progress("comparing");
  STASIS_TRY_SET(out.ram, inspect::diff_ram(side_a, side_b, progress.get()));
  if (options.symbols.empty() || out.ram.pages == 0) return {};
  STASIS_TRY_SET(const auto symbols, load_symbols(options.symbols));
  STASIS_TRY_SET(const auto kernel_a, kernel_of(a, side_a.memory, symbols, options.vcpu));
  STASIS_TRY_SET(const auto kernel_b, kernel_of(b, side_b.memory, symbols, options.vcpu));
  STASIS_TRY_SET(out.symbols, inspect::changed_symbols(symbols, kernel_a, kernel_b, progress.get()));
  return {};
}

std::string records_text(const inspect::RecordDiff& diff, const DiffOptions& options) {
  std::string out, record;
  for (const auto& path : diff.only_in_a) out += fmt::format("only in A: {}\n", path);
  for (const auto& path : diff.only_in_b) out += fmt::format("only in B: {}\n", path);
  const std::size_t shown = options.all ? diff.fields.size() : std::min(diff.fields.size(), kFieldsShown);
  for (std::size_t i = 0; i < shown; ++i) {
    const auto& field = diff.fields[i];
    std::string line = fmt::format("{:34} {} -> {}", field.path, field.a.empty() ? "(absent)" : field.a, field.b.empty() ? "(absent)" : field.b);
    const std::string remark = field.note.empty() ? field.help : field.help.empty() ? field.note : field.note + "; " + field.help;
    if (!remark.empty()) line = fmt::format("{:78}  # {}", line, remark);
    out += line + "\n";
  }
  const u64 more = diff.fields.size() - shown + diff.left_out;
  if (more) out += fmt::format("… and {} more fields{}\n", more, diff.left_out ? "" : "; --all shows them");
  return out;
}

std::string names_of(const std::vector<const inspect::SymbolChange*>& changes, bool all) {
  std::string out;
  const std::size_t shown = all ? changes.size() : std::min(changes.size(), kNamesShown);
  for (std::size_t i = 0; i < shown; ++i) out += (i ? ", " : "") + changes[i]->name;
  return shown < changes.size() ? fmt::format("{} … and {} more", out, changes.size() - shown) : out;
}

std::string ram_text(const inspect::RamDiff& diff, const std::vector<inspect::SymbolChange>& symbols, const DiffOptions& options) {
  std::string out;
  if (diff.only_a_bytes) out += fmt::format("only in A: the last {} of RAM\n", human_bytes(diff.only_a_bytes));
  if (diff.only_b_bytes) out += fmt::format("only in B: the last {} of RAM\n", human_bytes(diff.only_b_bytes));
  if (diff.pages == 0) return out;
  out += fmt::format("\nRAM: {} pages ({}) in {} ranges differ, {} bytes of them\n\n", human_count(diff.pages), human_bytes(diff.pages * kPageSize),
                     human_count(diff.ranges.size()), human_count(diff.bytes));
  out += fmt::format("{:>18}   {:18} {:>8} {:>11}  {}\n", "PHYSICAL", "TO", "PAGES", "BYTES", options.symbols.empty() ? "" : "SYMBOLS");
  const auto names = inspect::by_range(diff.ranges, symbols);
  const std::size_t shown = options.all ? diff.ranges.size() : std::min(diff.ranges.size(), kRangesShown);
  for (std::size_t i = 0; i < shown; ++i) {
    const auto& range = diff.ranges[i];
    std::string line = fmt::format("{:#18x} - {:<#18x} {:>8} {:>11}", range.address, range.address + range.pages * kPageSize - 1, range.pages, range.bytes);
    if (!names[i].empty()) line += "  " + names_of(names[i], options.all);
    out += line + "\n";
  }
  if (shown < diff.ranges.size()) out += fmt::format("… and {} more ranges; --all shows them\n", diff.ranges.size() - shown);
  return out;
}

Json value_json(const cbor::Value* value) { return value ? to_json(*value) : Json(); }

std::string json_of(const Diff& diff) {
  Json fields = Json::array(), ranges = Json::array(), symbols = Json::array();
  for (const auto& field : diff.records.fields)
    fields.push_back({{"path", field.path}, {"a", value_json(field.value_a)}, {"b", value_json(field.value_b)},
                      {"text_a", field.a}, {"text_b", field.b}, {"note", field.note}});
  const auto names = inspect::by_range(diff.ram.ranges, diff.symbols);
  for (std::size_t i = 0; i < diff.ram.ranges.size(); ++i) {
    Json here = Json::array();
    for (const auto* change : names[i]) here.push_back(change->name);
    const auto& range = diff.ram.ranges[i];
    ranges.push_back({{"address", range.address}, {"pages", range.pages}, {"bytes", range.bytes}, {"symbols", std::move(here)}});
  }
  for (const auto& change : diff.symbols)
    symbols.push_back({{"name", change.name}, {"address", change.address}, {"physical", change.physical}, {"size", change.size}, {"bytes", change.bytes}});
  return text_of({{"equal", diff.equal()},
                  {"only_in_a", diff.records.only_in_a},
                  {"only_in_b", diff.records.only_in_b},
                  {"fields", std::move(fields)},
                  {"fields_left_out", diff.records.left_out},
                  {"ram", {{"pages", diff.ram.pages}, {"bytes", diff.ram.bytes}, {"only_in_a_bytes", diff.ram.only_a_bytes},
                           {"only_in_b_bytes", diff.ram.only_b_bytes}, {"ranges", std::move(ranges)}}},
                  {"symbols", std::move(symbols)}});
}

Result<int> diff(const DiffOptions& options) {
  STASIS_TRY_SET(const auto a, open_snapshot(options.a, options.open));
  STASIS_TRY_SET(const auto b, open_snapshot(options.b, options.open));
  Diff out;
  out.records = inspect::diff_records(a.image, b.image);
  if (!options.no_ram) STASIS_TRY(compare_ram(options, a, b, out));
  if (options.json) print(json_of(out));
  else if (!out.equal())
    print(printable(fmt::format("A: {}\nB: {}\n\n", a.path, b.path) + records_text(out.records, options) + ram_text(out.ram, out.symbols, options)));
  if (output_failed()) return kNotCompared;
  return out.equal() ? 0 : kDifferent;
}

}  // namespace

void add_snapshot_diff(CLI::App& group, int& status) {
  auto* command = group.add_subcommand("diff", "What differs between two snapshots, by field and by page of RAM");
  const auto options = std::make_shared<DiffOptions>();
  command->add_option("A", options->a, "A snapshot")->required();
  command->add_option("B", options->b, "Another")->required();
  command->add_option("--symbols", options->symbols, "Names kernel symbols that differ: System.map, a saved /proc/kallsyms, or an ELF file")->type_name("FILE");
  command->add_option("--vcpu", options->vcpu, "Whose page tables the symbols are looked up by; default: the first in 64-bit mode")->check(CLI::NonNegativeNumber);
  command->add_flag("--no-ram", options->no_ram, "Fields only");
  command->add_flag("--all", options->all, "Without it long lists are cut");
  add_open_options(*command, options->open);
  command->add_flag("--json", options->json, "For scripts; never cut");
  command->footer("Exit status: 0 equal, 1 different, 2 usage, 3 the files could not be compared. Who wrote the files, when and in\n"
                  "which encoding is no difference.\n"
                  "Examples:\n"
                  "  stasis snapshot diff before.stasis after.stasis --symbols System.map\n"
                  "  stasis snapshot diff a.stasis b.stasis --no-ram --json | jq '.fields[].path'");
  command->callback([options, &status] {
    const auto done = diff(*options);
    if (!done) print_error(done.error(), options->json);
    status = done ? *done : done.error().code == ErrorCode::usage ? int{kUsage} : kNotCompared;
  });
}

}  // namespace stasis::cli
