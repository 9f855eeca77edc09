// A snapshot as JSON. Bytes are hexadecimal text; integers are exact.
#include <fmt/format.h>

#include "cli/snapshot_json.hpp"
#include "cli/snapshot_view.hpp"

namespace stasis::cli {

Json to_json(const cbor::Value& value, std::size_t most_bytes) {
  if (const auto* number = value.as<u64>()) return *number;
  if (const auto* boolean = value.as<bool>()) return *boolean;
  if (const auto* text = value.as<std::string>()) return *text;
  if (const auto* negative = value.as<cbor::Negative>()) return -1 - static_cast<i64>(negative->magnitude);
  if (const auto* bytes = value.as<cbor::ByteString>()) {
    if (bytes->size() > most_bytes) return Json{{"bytes", bytes->size()}};
    return fmt::format("{:02x}", fmt::join(*bytes, ""));
  }
  if (const auto* items = value.as<cbor::Array>()) {
    Json out = Json::array();
    for (const auto& item : *items) out.push_back(to_json(item, most_bytes));
    return out;
  }
  if (const auto* map = value.as<cbor::Map>()) {
    Json out = Json::object();
    for (const auto& [name, item] : map->members()) out[name] = to_json(item, most_bytes);
    return out;
  }
  return nullptr;
}

std::string text_of(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

namespace {

Json record_json(const snapshot::PartRecord& record) {
  return {{"path", record.path}, {"kind", record.schema.kind}, {"version", record.schema.version}, {"state", to_json(record.state)}};
}

Json section_json(const snapshot::SectionInfo& section) {
  return {{"name", section.name}, {"version", section.version}, {"critical", section.critical},
          {"known", section.known}, {"offset", section.offset}, {"bytes", section.length}, {"digest", section.digest}};
}

Json lineage_json(const snapshot::OpenSnapshot& snapshot) {
  Json out = Json::array();
  for (const snapshot::OpenSnapshot* at = &snapshot; at && at->parent_link; at = at->parent.get()) {
    const snapshot::ParentLink& link = *at->parent_link;
    out.push_back({{"file", link.file}, {"content", snapshot::hex(link.content)}, {"uuid", snapshot::uuid_text(link.uuid)},
                   {"path", at->parent ? Json(at->parent->path) : Json()}});
  }
  return out;
}

Json notes_json(const snapshot::OpenSnapshot& snapshot) {
  Json out = Json::array();
  for (const snapshot::Note& note : snapshot.image.notes) out.push_back({{"at", note.at}, {"by", note.by}, {"text", note.text}});
  return out;
}

Json identity_json(const std::string& path, const snapshot::Producer& producer, u16 major, u16 minor) {
  return {{"path", path},
          {"format", fmt::format("{}.{}", major, minor)},
          {"program", producer.program},
          {"version", producer.version},
          {"created_at", producer.created_at},
          {"uuid", snapshot::uuid_text(producer.uuid)}};
}

}  // namespace

std::string show_identity_json(const std::string& path, const snapshot::Identity& identity) {
  Json out = identity_json(path, identity.producer, identity.format_major, identity.format_minor);
  out["complete"] = identity.complete;
  out["encrypted"] = identity.encrypted;
  return text_of(out);
}

std::string show_whole_json(const snapshot::OpenSnapshot& snapshot) {
  const auto& image = snapshot.image;
  const u64 all = image.ram_size / kPageSize;
  const PageCounts pages = page_counts(snapshot);
  Json sections = Json::array(), parts = Json::array(), host = Json::array();
  for (const auto& section : snapshot.sections) sections.push_back(section_json(section));
  for (const auto& part : image.parts)
    parts.push_back({{"path", part.path}, {"kind", part.schema.kind}, {"version", part.schema.version}});
  for (const auto& resource : image.host)
    host.push_back({{"name", resource.name}, {"kind", resource.kind}, {"hint", resource.hint}});
  Json out = identity_json(snapshot.path, image.producer, snapshot.format_major, snapshot.format_minor);
  out.update(Json{{"root", snapshot.root},
                  {"file_bytes", snapshot.file_bytes},
                  {"content", snapshot::hex(snapshot.ram.content)},
                  {"disk_bytes", bytes_on_disk(snapshot)},
                  {"encoding", name_of(snapshot.ram.encoding)},
                  {"encrypted", snapshot.encrypted},
                  {"lineage", lineage_json(snapshot)},
                  {"notes", notes_json(snapshot)},
                  {"ram", {{"bytes", image.ram_size}, {"pages", all}, {"present", pages.present}, {"same_as", pages.same_as},
                           {"in_parent", pages.in_parent}, {"zero", all - pages.present - pages.same_as - pages.in_parent}}},
                  {"host", std::move(host)},
                  {"machine", to_json(image.machine.state)},
                  {"parts", std::move(parts)},
                  {"sections", std::move(sections)}});
  return text_of(out);
}

std::string state_json(const snapshot::OpenSnapshot& snapshot) {
  const auto& image = snapshot.image;
  const auto whole = [](const snapshot::PartRecord& record) {
    return Json{{"path", record.path}, {"kind", record.schema.kind}, {"version", record.schema.version},
                {"fields", to_json(*state::to_value(record.schema).as<cbor::Map>()->find("fields"))}, {"state", to_json(record.state, ~std::size_t{0})}};
  };
  Json parts = Json::array(), host = Json::array();
  for (const auto& part : image.parts) parts.push_back(whole(part));
  for (const auto& resource : image.host) host.push_back({{"name", resource.name}, {"kind", resource.kind}, {"hint", resource.hint}});
  return text_of({{"format", fmt::format("{}.{}", snapshot.format_major, snapshot.format_minor)},
                  {"program", image.producer.program},
                  {"version", image.producer.version},
                  {"created_at", image.producer.created_at},
                  {"uuid", snapshot::uuid_text(image.producer.uuid)},
                  {"root", snapshot.root},
                  {"ram_bytes", image.ram_size},
                  {"host", std::move(host)},
                  {"machine", whole(image.machine)},
                  {"parts", std::move(parts)}});
}

Result<std::string> show_path_json(const snapshot::OpenSnapshot& snapshot, const std::string& path) {
  STASIS_TRY_SET(const Selection selection, select(snapshot, path));
  if (selection.section) return text_of(section_json(*selection.section));
  if (selection.schema) {
    const auto& schema = *selection.schema;
    return text_of({{"path", path}, {"value", to_json(*selection.value)}, {"text", state::show(*selection.value, schema)},
                    {"type", schema.type}, {"unit", schema.unit}, {"help", schema.help}});
  }
  if (selection.value) return text_of(record_json(*selection.records.front()));
  Json records = Json::array();
  for (const auto* record : selection.records) records.push_back(record_json(*record));
  return text_of(records);
}

}  // namespace stasis::cli
