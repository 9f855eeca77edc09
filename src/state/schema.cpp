// Schemas as CBOR, as lock text, and as a guide to reading a record.
#include "state/schema.hpp"

#include <fmt/format.h>

#include <charconv>

#include "base/text.hpp"

namespace stasis::state {
namespace {

using cbor::Array;
using cbor::Map;
using cbor::Value;

Value field_to_value(const FieldSchema& f) {
  Map m;
  m.set("name", f.name);
  m.set("type", f.type);
  if (!f.unit.empty()) m.set("unit", f.unit);
  if (!f.help.empty()) m.set("help", f.help);
  if (f.since != 1) m.set("since", u64{f.since});
  if (f.hex) m.set("hex", true);
  if (f.least != 0) m.set("least", f.least);
  if (f.most != ~0ull) m.set("most", f.most);
  if (f.mask != ~0ull) m.set("mask", f.mask);
  if (!f.renamed_from.empty()) m.set("renamed_from", f.renamed_from);
  if (!f.names.empty()) m.set("names", Array(f.names.begin(), f.names.end()));
  if (!f.members.empty()) {
    Array members;
    for (const FieldSchema& member : f.members) members.push_back(field_to_value(member));
    m.set("members", std::move(members));
  }
  return m;
}

std::string text_or(const Map& m, std::string_view key) {
  const Value* v = m.find(key);
  const std::string* s = v ? v->as<std::string>() : nullptr;
  return s ? *s : std::string();
}

u64 number_or(const Map& m, std::string_view key, u64 otherwise) {
  const Value* v = m.find(key);
  const u64* n = v ? v->as<u64>() : nullptr;
  return n ? *n : otherwise;
}

Result<FieldSchema> field_from_value(const Value& value, const std::string& object) {
  const Map* m = value.as<Map>();
  if (!m) return fail(ErrorCode::bad_file, object, "a schema field is not a map", "the file is damaged or not ours");
  FieldSchema f{.name = text_or(*m, "name"), .type = text_or(*m, "type"), .unit = text_or(*m, "unit"),
                .help = text_or(*m, "help"), .since = static_cast<u16>(number_or(*m, "since", 1)),
                .hex = m->find("hex") != nullptr, .least = number_or(*m, "least", 0),
                .most = number_or(*m, "most", ~0ull), .mask = number_or(*m, "mask", ~0ull),
                .renamed_from = text_or(*m, "renamed_from"), .names = {}, .members = {}};
  if (f.name.empty() || f.type.empty())
    return fail(ErrorCode::bad_file, object, "a schema field has no name or no type", "the file is damaged or not ours");
  if (const Value* names = m->find("names"))
    if (const Array* list = names->as<Array>())
      for (const Value& name : *list)
        if (const std::string* text = name.as<std::string>()) f.names.push_back(*text);
  if (const Value* members = m->find("members"))
    if (const Array* list = members->as<Array>())
      for (const Value& member : *list) {
        STASIS_TRY_SET(FieldSchema inner, field_from_value(member, object));
        f.members.push_back(std::move(inner));
      }
  return f;
}

void add_lock_lines(std::string& out, const std::string& prefix, const std::vector<FieldSchema>& fields) {
  for (const FieldSchema& f : fields) {
    out += fmt::format("{}{} {}", prefix, f.name, f.type);
    if (!f.unit.empty()) out += " unit=" + f.unit;
    if (f.since != 1) out += fmt::format(" since={}", f.since);
    if (f.least != 0 || f.most != ~0ull) out += fmt::format(" range={}..{}", f.least, f.most);
    if (f.mask != ~0ull) out += fmt::format(" mask={:#x}", f.mask);
    if (!f.renamed_from.empty()) out += " was=" + f.renamed_from;
    if (!f.names.empty()) out += fmt::format(" names={}", fmt::join(f.names, ","));
    out += '\n';
    add_lock_lines(out, prefix + f.name + "/", f.members);
  }
}

const FieldSchema* named(const std::vector<FieldSchema>& fields, std::string_view name) {
  for (const FieldSchema& f : fields)
    if (f.name == name) return &f;
  return nullptr;
}

}  // namespace

cbor::Value to_value(const Schema& schema) {
  Map m;
  m.set("kind", schema.kind);
  m.set("version", u64{schema.version});
  Array fields;
  for (const FieldSchema& f : schema.fields) fields.push_back(field_to_value(f));
  m.set("fields", std::move(fields));
  return m;
}

Result<Schema> schema_from_value(const cbor::Value& value, const std::string& object) {
  const Map* m = value.as<Map>();
  const Value* fields = m ? m->find("fields") : nullptr;
  if (!fields || !fields->as<Array>())
    return fail(ErrorCode::bad_file, object, "the schema has no list of fields", "the file is damaged or not ours");
  Schema out{.kind = text_or(*m, "kind"), .version = static_cast<u16>(number_or(*m, "version", 1)), .fields = {}};
  for (const Value& f : *fields->as<Array>()) {
    STASIS_TRY_SET(FieldSchema field, field_from_value(f, object));
    out.fields.push_back(std::move(field));
  }
  return out;
}

std::string lock_text(const Schema& schema) {
  std::string out;
  add_lock_lines(out, fmt::format("{} v{} ", schema.kind, schema.version), schema.fields);
  if (schema.fields.empty()) out = fmt::format("{} v{} (no state)\n", schema.kind, schema.version);
  return out;
}

Found find(const Schema& schema, const cbor::Value& record, std::string_view path) {
  const std::vector<FieldSchema>* fields = &schema.fields;
  Found at{&record, nullptr};
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view step = path.substr(0, slash);
    path = slash == path.npos ? std::string_view() : path.substr(slash + 1);
    if (const Map* m = at.value->as<Map>()) {
      at = {m->find(step), named(*fields, step)};
      if (!at.value || !at.schema) return {};
      fields = &at.schema->members;
    } else if (const Array* a = at.value->as<Array>()) {
      std::size_t index = 0;
      const auto [end, error] = std::from_chars(step.data(), step.data() + step.size(), index);
      if (error != std::errc() || end != step.data() + step.size() || index >= a->size()) return {};
      at.value = &(*a)[index];
    } else {
      return {};
    }
  }
  return at;
}

std::string show(const cbor::Value& value, const FieldSchema& schema) {
  if (const u64* number = value.as<u64>()) {
    if (*number < schema.names.size()) return fmt::format("{} ({})", schema.names[*number], *number);
    std::string out = schema.hex ? fmt::format("{:#x}", *number) : fmt::format("{}", *number);
    if (!schema.unit.empty()) out += " " + schema.unit;
    return out;
  }
  if (const auto* negative = value.as<cbor::Negative>()) return fmt::format("-{}", u128{negative->magnitude} + 1);
  if (const bool* boolean = value.as<bool>()) return *boolean ? "true" : "false";
  if (const std::string* text = value.as<std::string>()) return fmt::format("\"{}\"", printable(*text));
  if (const auto* bytes = value.as<cbor::ByteString>()) return fmt::format("{:02x}", fmt::join(*bytes, " "));
  if (const Array* array = value.as<Array>()) {
    std::string out = "[";
    for (const Value& item : *array) out += (out.size() > 1 ? ", " : "") + show(item, schema);
    return out + "]";
  }
  if (const Map* map = value.as<Map>()) {
    std::string out = "{";
    for (const auto& [name, item] : map->members()) {
      const FieldSchema* inner = named(schema.members, name);
      out += fmt::format("{}{}: {}", out.size() > 1 ? ", " : "", name, inner ? show(item, *inner) : "?");
    }
    return out + "}";
  }
  return "null";
}

}  // namespace stasis::state
