// stasis snapshot map: a picture of a saved guest's memory, or of what changed between two.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <span>

#include "base/file_descriptor.hpp"
#include "cli/commands.hpp"
#include "cli/exit_status.hpp"
#include "cli/output.hpp"
#include "cli/snapshot_file.hpp"
#include "cli/snapshot_json.hpp"
#include "inspect/memory_map.hpp"
#include "inspect/picture.hpp"
#include "snapshot/publication.hpp"

namespace stasis::cli {
namespace {

using inspect::Color;

struct MapOptions {
  OpenWords open;
  std::string file, out, with;
  bool json = false;
};

// Light for what costs nothing; code stands out.
constexpr std::array<Color, 6> kContentColors{Color{238, 240, 242}, {166, 206, 227}, {72, 142, 190}, {16, 62, 112}, {230, 126, 34}, {203, 196, 178}};
constexpr std::array<Color, 5> kChangeColors{Color{238, 240, 242}, {176, 186, 196}, {214, 48, 49}, {39, 154, 84}, {142, 68, 173}};
constexpr u64 kLabelRows = 32;

std::string name_of(const std::string& path) { return std::filesystem::path(path).filename().string(); }

// The base names fit; the rest of a picture has no room for more.
std::string short_name(const std::string& path) {
  const std::string name = name_of(path);
  return name.size() <= 24 ? name : name.substr(0, 21) + "...";
}

inspect::Picture frame_of(const inspect::PhysicalMemory& memory, const inspect::PageMap& map, std::span<const Color> colors, std::span<const std::string_view> names) {
  inspect::Picture out;
  const u64 per_cell = inspect::pages_per_cell(map.classes.size());
  out.columns = inspect::kColumns;
  out.cells = inspect::cells_of(map.classes, colors, per_cell);
  const u64 row_bytes = out.columns * per_cell * kPageSize, rows = (out.cells.size() + out.columns - 1) / out.columns;
  for (u64 row = 0; row < rows; row += kLabelRows) out.labels.emplace_back(row, fmt::format("{:#x}", memory.address_of(row * row_bytes)));
  for (std::size_t i = 0; i < names.size(); ++i)
    out.legend.push_back({colors[i], fmt::format("{}: {} pages, {}", names[i], map.pages[i], human_bytes(map.pages[i] * kPageSize))});
  out.subtitle = fmt::format("{} of RAM, {} a cell, {} a row", human_bytes(memory.size()), human_bytes(per_cell * kPageSize), human_bytes(row_bytes));
  return out;
}

Json counts_json(const inspect::PageMap& map, std::span<const std::string_view> names) {
  Json out = Json::object();
  for (std::size_t i = 0; i < names.size(); ++i) out[std::string(names[i])] = map.pages[i];
  return out;
}

struct Drawn {
  inspect::Picture picture;
  Json details;
};

Result<Drawn> draw_contents(const snapshot::OpenSnapshot& snapshot) {
  STASIS_TRY_SET(const auto ram, load_ram(snapshot));
  const inspect::PhysicalMemory memory(ram.source());
  // Without a vCPU in 64-bit mode there is no code that could be told.
  inspect::Mappings mappings;
  if (const auto vcpu = choose_vcpu(snapshot, -1))
    if (const auto space = inspect::address_space_of(*vcpu, memory, ""); space && space->levels) mappings = inspect::mappings_of(memory, *space);
  ProgressLine progress("measuring");
  std::vector<u64> in_parent;
  for (const snapshot::ChunkRecord& chunk : snapshot.ram.chunks) in_parent.push_back(chunk.in_parent);
  STASIS_TRY_SET(const inspect::PageMap map, inspect::map_contents(memory, mappings, in_parent, progress.get()));
  const std::span names = std::span(inspect::kContentNames).first(inspect::kContents - (snapshot.parent_link ? 0 : 1));
  Drawn out{frame_of(memory, map, kContentColors, names), {}};
  out.picture.title = short_name(snapshot.path);
  out.details = {{"pages", counts_json(map, names)}, {"packed_bytes", map.packed_bytes}};
  return out;
}

Result<Drawn> draw_changes(const snapshot::OpenSnapshot& a, const snapshot::OpenSnapshot& b) {
  STASIS_TRY_SET(const auto ram_a, load_ram(a));
  STASIS_TRY_SET(const auto ram_b, load_ram(b));
  const inspect::RamSide side_a{inspect::PhysicalMemory(ram_a.source()), a.chunk_digests}, side_b{inspect::PhysicalMemory(ram_b.source()), b.chunk_digests};
  ProgressLine progress("comparing");
  STASIS_TRY_SET(const inspect::PageMap map, inspect::map_changes(side_a, side_b, progress.get()));
  const auto& larger = side_a.memory.size() >= side_b.memory.size() ? side_a.memory : side_b.memory;
  Drawn out{frame_of(larger, map, kChangeColors, inspect::kChangeNames), {}};
  out.picture.title = fmt::format("{} -> {}", short_name(a.path), short_name(b.path));
  out.details = {{"pages", counts_json(map, inspect::kChangeNames)}};
  return out;
}

Result<> map(const MapOptions& options) {
  const bool svg = options.out.ends_with(".svg");
  if (!svg && !options.out.ends_with(".png"))
    return fail(ErrorCode::usage, "OUT", fmt::format("'{}' ends neither in .png nor in .svg", options.out), "its ending chooses the kind of picture");
  STASIS_TRY_SET(const auto snapshot, open_snapshot(options.file, options.open));
  if (snapshot::is_file_of(snapshot, options.out))
    return fail(ErrorCode::usage, options.out, "is the snapshot that is drawn, or an ancestor of it", "choose another name");
  Drawn drawn;
  if (options.with.empty()) {
    STASIS_TRY_SET(drawn, draw_contents(snapshot));
  } else {
    STASIS_TRY_SET(const auto other, open_snapshot(options.with, options.open));
    STASIS_TRY_SET(drawn, draw_changes(snapshot, other));
  }
  const std::string target = absolute_path(options.out);
  std::vector<u8> bytes;
  if (svg) {
    const std::string text = inspect::to_svg(drawn.picture);
    bytes.assign(text.begin(), text.end());
  } else {
    STASIS_TRY_SET(bytes, inspect::to_png(drawn.picture, target));
  }
  STASIS_TRY_SET(auto file, snapshot::Publication::begin(target));
  STASIS_TRY(write_all(file.fd(), bytes, target));
  STASIS_TRY(file.publish());
  if (options.json) {
    Json out{{"path", target}};
    out.update(drawn.details);
    return print(text_of(out)), Result<>{};
  }
  std::string text = fmt::format("{}: {}\n", target, drawn.picture.subtitle);
  for (const auto& entry : drawn.picture.legend) text += "  " + entry.text + "\n";
  return print(printable(text)), Result<>{};
}

}  // namespace

void add_snapshot_map(CLI::App& group, int& status) {
  auto* command = group.add_subcommand("map", "A picture of the guest's memory, or of what changed between two snapshots");
  const auto options = std::make_shared<MapOptions>();
  command->add_option("FILE", options->file, "The snapshot")->required();
  command->add_option("OUT", options->out, "The picture to write: NAME.png or NAME.svg")->required();
  command->add_option("--with", options->with, "What became of each page in this later snapshot")->type_name("OTHER");
  add_open_options(*command, options->open);
  command->add_flag("--json", options->json, "How many pages of each kind, for scripts");
  command->footer("Examples:\n"
                  "  stasis snapshot map web.stasis web.png\n"
                  "  stasis snapshot map before.stasis change.svg --with after.stasis");
  command->callback([options, &status] {
    const auto done = map(*options);
    if (done) return;
    print_error(done.error(), options->json);
    status = status_of(done.error());
  });
}

}  // namespace stasis::cli
