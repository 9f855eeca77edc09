// A snapshot in words.
#include "cli/snapshot_view.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <charconv>

#include "cli/output.hpp"

namespace stasis::cli {
namespace {

constexpr std::size_t kMostBytesShown = 32, kMostTextShown = 400, kMostItemsShown = 64, kLongestRow = 120;

std::string hex_of(Bytes bytes) {
  const Bytes shown = bytes.first(std::min(bytes.size(), kMostBytesShown));
  std::string out = fmt::format("{:02x}", fmt::join(shown, " "));
  if (shown.size() < bytes.size()) out += fmt::format(" … ({} bytes)", bytes.size());
  return out;
}

const state::FieldSchema* member_schema(const std::vector<state::FieldSchema>& fields, std::string_view name) {
  const auto at = std::find_if(fields.begin(), fields.end(), [&](const auto& field) { return field.name == name; });
  return at == fields.end() ? nullptr : &*at;
}

bool holds_records(const cbor::Value& value) {
  const auto* items = value.as<cbor::Array>();
  return items && !items->empty() && items->front().as<cbor::Map>();
}

// One value on one line, long ones cut.
std::string short_text(const cbor::Value& value, const state::FieldSchema& schema) {
  if (const auto* bytes = value.as<cbor::ByteString>()) return hex_of(*bytes);
  if (const auto* items = value.as<cbor::Array>(); items && items->size() > kMostItemsShown) {
    const cbor::Array first(items->begin(), items->begin() + kMostItemsShown);
    return fmt::format("{} … ({} items)", state::show(cbor::Value(first), schema), items->size());
  }
  std::string text = state::show(value, schema);
  if (text.size() > kMostTextShown) text = fmt::format("{} … ({} bytes)", text.substr(0, kMostTextShown), text.size());
  return text;
}

void add_line(std::string& out, int indent, std::string_view name, const std::string& value, const std::string& help) {
  std::string line = fmt::format("{:{}}{:24} {}", "", indent, name, value);
  if (!help.empty()) line = fmt::format("{:56}  # {}", line, help);
  out += line + "\n";
}

void add_value(std::string& out, int indent, const std::string& name, const cbor::Value& value, const state::FieldSchema& schema);

void add_members(std::string& out, int indent, const cbor::Value& record, const std::vector<state::FieldSchema>& fields) {
  const auto* map = record.as<cbor::Map>();
  if (!map) return;
  // In the schema's order, which is the chip's; what no schema names comes last.
  for (const auto& field : fields)
    if (const auto* value = map->find(field.name)) add_value(out, indent, field.name, *value, field);
  for (const auto& [name, value] : map->members())
    if (!member_schema(fields, name)) add_line(out, indent, name, short_text(value, {}), "not in the schema");
}

void add_value(std::string& out, int indent, const std::string& name, const cbor::Value& value, const state::FieldSchema& schema) {
  if (value.as<cbor::Map>()) {
    add_line(out, indent, name, "", schema.help);
    return add_members(out, indent + 2, value, schema.members);
  }
  if (!holds_records(value)) return add_line(out, indent, name, short_text(value, schema), schema.help);
  const auto& items = *value.as<cbor::Array>();
  for (std::size_t i = 0; i < std::min(items.size(), kMostItemsShown); ++i) {
    const std::string here = fmt::format("{}/{}", name, i);
    // A table reads best with a row on a line.
    if (const std::string row = state::show(items[i], schema); row.size() <= kLongestRow) add_line(out, indent, here, row, "");
    else add_value(out, indent, here, items[i], schema);
  }
  if (items.size() > kMostItemsShown) add_line(out, indent, name, fmt::format("… ({} items)", items.size()), "");
}

std::string record_text(const snapshot::PartRecord& record) {
  std::string out = fmt::format("{} ({} version {})\n", record.path, record.schema.kind, record.schema.version);
  add_members(out, 2, record.state, record.schema.fields);
  return out;
}

void add_identity(std::string& out, const snapshot::Producer& producer, const std::string& format) {
  out += fmt::format("  {:14} {}\n", "format", format);
  out += fmt::format("  {:14} {} {}, {}\n", "written by", producer.program, producer.version, producer.created_at);
  out += fmt::format("  {:14} {}\n", "uuid", snapshot::uuid_text(producer.uuid));
}

void add_sections(std::string& out, const snapshot::OpenSnapshot& snapshot) {
  out += fmt::format("\n{:36} {:24} {:>7} {:>12} {:>14}  {}\n", "SECTION", "KIND", "VERSION", "OFFSET", "BYTES", "DIGEST");
  for (const auto& section : snapshot.sections) {
    const auto& parts = snapshot.image.parts;
    const auto part = std::find_if(parts.begin(), parts.end(), [&](const auto& p) { return p.path == section.name; });
    const std::string kind = part == parts.end() ? (section.known ? "-" : "not known here, skipped") : part->schema.kind;
    const u16 version = part == parts.end() ? section.version : part->schema.version;
    out += fmt::format("{:36} {:24} {:>7} {:>12} {:>14}  {}\n", section.name, kind, version, section.offset, section.length,
                       section.digest.empty() ? "-" : section.digest);
  }
}

// How the file holds the machine, and which files it needs beside it.
void add_holding(std::string& out, const snapshot::OpenSnapshot& snapshot) {
  const PageCounts pages = page_counts(snapshot);
  const u64 all = snapshot.image.ram_size / kPageSize, nonzero = pages.present + pages.same_as + pages.in_parent;
  out += fmt::format("  {:14} {}{}\n", "encoding", name_of(snapshot.ram.encoding), snapshot.encrypted ? ", encrypted" : "");
  out += fmt::format("  {:14} {}: {} pages, {} present, {} same as another, {} in the parent, {} zero\n", "ram", human_bytes(snapshot.image.ram_size), all,
                     pages.present, pages.same_as, pages.in_parent, all - nonzero);
  for (const snapshot::OpenSnapshot* at = &snapshot; at && at->parent_link; at = at->parent.get()) {
    const snapshot::ParentLink& link = *at->parent_link;
    out += fmt::format("  {:14} {} (content {}{})\n", "parent", at->parent ? at->parent->path : link.file, snapshot::hex(link.content),
                       at->parent ? ", " + at->parent->image.producer.created_at : "; not found here");
  }
}

// When in the guest's life it was saved.
void add_moment(std::string& out, const snapshot::OpenSnapshot& snapshot) {
  for (const auto& [what, path] : {std::pair{"instructions", "cpu/0/retired"}, std::pair{"guest time", "clock/now_ns"}}) {
    const auto found = select(snapshot, path);
    const u64* number = found && found->schema ? found->value->as<u64>() : nullptr;
    if (number) out += fmt::format("  {:14} {}\n", what, found->schema->unit == "ns" ? human_seconds(*number) : human_count(*number));
  }
}

// "…/15" behind a byte string: that byte. Empty: no such thing.
Selection byte_of(const snapshot::PartRecord& owner, std::string_view inner) {
  const std::size_t slash = inner.rfind('/');
  if (slash == inner.npos) return {};
  const auto outer = state::find(owner.schema, owner.state, inner.substr(0, slash));
  const auto* bytes = outer.value && outer.schema ? outer.value->as<cbor::ByteString>() : nullptr;
  const std::string_view digits = inner.substr(slash + 1);
  std::size_t index = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (!bytes || error != std::errc() || end != digits.data() + digits.size() || index >= bytes->size()) return {};
  const auto element = std::make_shared<const cbor::Value>(u64{(*bytes)[index]});
  return {{&owner}, element.get(), outer.schema, element, nullptr};
}

std::string section_text(const snapshot::OpenSnapshot& snapshot, const snapshot::SectionInfo& section) {
  std::string out = fmt::format("{} (section version {})\n", section.name, section.version);
  add_line(out, 2, "offset", fmt::format("{}", section.offset), "in the file");
  add_line(out, 2, "length", fmt::format("{} bytes", section.length), human_bytes(section.length));
  add_line(out, 2, "critical", section.critical ? "true" : "false", "whether readers that do not know it must refuse the file");
  add_line(out, 2, "digest", section.digest.empty() ? "-" : section.digest, section.digest.empty() ? "its index covers it" : "");
  if (section.name == "parent" && snapshot.parent_link) {
    add_line(out, 2, "file", snapshot.parent_link->file, "its name then");
    add_line(out, 2, "content", snapshot::hex(snapshot.parent_link->content), "its content digest");
    add_line(out, 2, "uuid", snapshot::uuid_text(snapshot.parent_link->uuid), "");
  }
  if (section.name == "notes")
    for (const snapshot::Note& note : snapshot.image.notes) add_line(out, 2, note.at, fmt::format("{}: {}", note.by, note.text), "");
  if (section.name == "producer") add_identity(out, snapshot.image.producer, fmt::format("{}.{}", snapshot.format_major, snapshot.format_minor));
  if (section.name != "memory/ram") return out;
  const PageCounts pages = page_counts(snapshot);
  add_line(out, 2, "pages", fmt::format("{}", snapshot.image.ram_size / kPageSize), "");
  add_line(out, 2, "present", fmt::format("{}", pages.present), human_bytes(pages.present * kPageSize));
  add_line(out, 2, "same_as", fmt::format("{}", pages.same_as), "equal to a present one");
  add_line(out, 2, "in_parent", fmt::format("{}", pages.in_parent), "");
  return out;
}

std::string known_paths(const snapshot::OpenSnapshot& snapshot) {
  std::string out = snapshot.image.machine.path;
  for (const auto& part : snapshot.image.parts) out += ", " + part.path;
  return out;
}

}  // namespace

PageCounts page_counts(const snapshot::Decoded& snapshot) {
  PageCounts out;
  const auto count = [](u64 pages) { return static_cast<u64>(std::popcount(pages)); };
  for (const snapshot::ChunkRecord& chunk : snapshot.ram.chunks)
    out.present += count(chunk.present), out.same_as += count(chunk.same_as), out.in_parent += count(chunk.in_parent);
  return out;
}

u64 bytes_on_disk(const snapshot::OpenSnapshot& snapshot) {
  struct stat info;
  return ::fstat(snapshot.file.get(), &info) == 0 ? static_cast<u64>(info.st_blocks) * 512 : 0;
}

std::string show_identity(const std::string& path, const snapshot::Identity& identity) {
  std::string out = fmt::format("{}: a Stasis snapshot, {}\n", path, identity.complete ? "complete" : "incomplete");
  add_identity(out, identity.producer, fmt::format("{}.{}", identity.format_major, identity.format_minor));
  return out;
}

std::string show_whole(const snapshot::OpenSnapshot& snapshot) {
  std::string out = fmt::format("{}: a Stasis snapshot, complete\n", snapshot.path);
  const auto& image = snapshot.image;
  add_identity(out, image.producer, fmt::format("{}.{}", snapshot.format_major, snapshot.format_minor));
  out += fmt::format("  {:14} {}\n", "root", snapshot.root);
  out += fmt::format("  {:14} {}\n", "content", snapshot::hex(snapshot.ram.content));
  out += fmt::format("  {:14} {} ({} bytes), {} on disk\n", "file", human_bytes(snapshot.file_bytes), snapshot.file_bytes, human_bytes(bytes_on_disk(snapshot)));
  add_holding(out, snapshot);
  add_moment(out, snapshot);
  for (const auto& resource : image.host)
    out += fmt::format("  {:14} {} {} ({})\n", "needs", resource.kind, resource.name, resource.hint);
  for (const snapshot::Note& note : image.notes) out += fmt::format("  {:14} {}, {}: {}\n", "note", note.at, note.by, note.text);
  out += "\n" + record_text(image.machine);
  for (const auto& part : image.parts)
    if (part.path == "cpu/contract") out += "\n" + record_text(part);
  add_sections(out, snapshot);
  return out;
}

bool lacks(const snapshot::OpenSnapshot& snapshot, const std::string& path) {
  return std::ranges::any_of(snapshot.image.parts, [&](const snapshot::PartRecord& part) {
    return part.left_out && (part.path == path || path.starts_with(part.path + "/") || part.path.starts_with(path + "/"));
  });
}

Result<Selection> select(const snapshot::OpenSnapshot& snapshot, const std::string& path) {
  std::vector<const snapshot::PartRecord*> all{&snapshot.image.machine};
  for (const auto& part : snapshot.image.parts) all.push_back(&part);
  const snapshot::PartRecord* owner = nullptr;  // the longest path that begins this one
  Selection selection;
  for (const auto* part : all) {
    if (part->path == path) return Selection{{part}, &part->state, nullptr, nullptr, nullptr};
    if (path.starts_with(part->path + "/") && (!owner || part->path.size() > owner->path.size())) owner = part;
    if (part->path.starts_with(path + "/")) selection.records.push_back(part);
  }
  if (!selection.records.empty()) return selection;
  for (const auto& section : snapshot.sections)
    if (section.name == path) return selection.section = &section, selection;
  const std::string object = "snapshot " + snapshot.path;
  if (!owner) return fail(ErrorCode::not_found, object, fmt::format("has no record '{}'", path), "it has " + known_paths(snapshot));
  const std::string_view inner = std::string_view(path).substr(owner->path.size() + 1);
  const auto found = state::find(owner->schema, owner->state, inner);
  if (Selection byte = byte_of(*owner, inner); byte.value) return byte;
  if (!found.value || !found.schema)
    return fail(ErrorCode::not_found, object, fmt::format("has no field '{}'", path),
                fmt::format("'stasis snapshot show FILE {}' lists that record's fields", owner->path));
  return Selection{{owner}, found.value, found.schema, nullptr, nullptr};
}

Result<std::string> show_path(const snapshot::OpenSnapshot& snapshot, const std::string& path) {
  STASIS_TRY_SET(const Selection selection, select(snapshot, path));
  std::string out;
  if (selection.section) return section_text(snapshot, *selection.section);
  if (selection.schema) {
    const auto* items = selection.value->as<cbor::Array>();
    if (!items || holds_records(*selection.value)) return add_value(out, 0, path, *selection.value, *selection.schema), out;
    // Asked for alone, an array has room: an element on a line, each with its path.
    for (std::size_t i = 0; i < items->size(); ++i) add_value(out, 0, fmt::format("{}/{}", path, i), (*items)[i], *selection.schema);
    return out;
  }
  for (const auto* record : selection.records) out += (out.empty() ? "" : "\n") + record_text(*record);
  return out;
}

}  // namespace stasis::cli
