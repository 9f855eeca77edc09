// Schemas as CBOR, and as a guide to reading a record.
#include "state/schema.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "base/text.hpp"
#include "state/fit.hpp"

namespace stasis::state {
namespace {

using cbor::Array;
using cbor::Map;
using cbor::Value;

Array former_names(const std::vector<FormerName>& names) {
  Array out;
  for (const FormerName& former : names) {
    Map m;
    m.set("name", former.name);
    m.set("until", u64{former.until});
    out.push_back(std::move(m));
  }
  return out;
}

void set_bounds(Map& m, u64 least, u64 most, u64 mask) {
  if (least != 0) m.set("least", least);
  if (most != ~0ull) m.set("most", most);
  if (mask != ~0ull) m.set("mask", mask);
}

Array former_bounds(const std::vector<FormerBounds>& bounds) {
  Array out;
  for (const FormerBounds& former : bounds) {
    Map m;
    set_bounds(m, former.least, former.most, former.mask);
    m.set("until", u64{former.until});
    out.push_back(std::move(m));
  }
  return out;
}

Value field_to_value(const FieldSchema& f) {
  Map m;
  m.set("name", f.name);
  m.set("type", f.type);
  if (!f.unit.empty()) m.set("unit", f.unit);
  if (!f.help.empty()) m.set("help", f.help);
  if (f.since != 1) m.set("since", u64{f.since});
  if (f.hex) m.set("hex", true);
  set_bounds(m, f.least, f.most, f.mask);
  if (f.skippable) m.set("skippable", true);
  if (f.default_value) m.set("default", *f.default_value);
  if (!f.renamed_from.empty()) m.set("renamed_from", former_names(f.renamed_from));
  if (!f.widened.empty()) m.set("widened", former_bounds(f.widened));
  if (!f.names.empty()) m.set("names", Array(f.names.begin(), f.names.end()));
  if (!f.members.empty()) {
    Array members;
    for (const FieldSchema& member : f.members) members.push_back(field_to_value(member));
    m.set("members", std::move(members));
  }
  return m;
}

// Reads the maps of a schema; the first thing wrong is kept, and what is read after it is of no use.
class SchemaReader {
 public:
  explicit SchemaReader(const std::string& object) : object_(object) {}

  Result<Schema> schema(const Value& value) {
    Schema out;
    const Map* m = value.as<Map>();
    if (!m || !m->find("fields")) return bad("the schema has no list of fields"), failure();
    if (!m->find("version")) return bad("the schema has no version"), failure();
    out.kind = read<std::string>(*m, "kind", {});
    out.version = latest_ = version(*m, "version", 1);
    out.reshaped = version(*m, "reshaped", 1);
    out.skippable = read(*m, "skippable", false);
    out.fields = fields(*m, "fields");
    if (out.reshaped > out.version) bad(fmt::format("the schema is of version {}, but its shape of version {}", out.version, out.reshaped));
    if (!wrong_.empty()) return failure();
    return out;
  }

 private:
  void bad(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }
  std::unexpected<Error> failure() const { return fail(ErrorCode::bad_file, object_, wrong_, "the file is damaged or not ours"); }

  template <class T>
  T read(const Map& m, std::string_view key, T otherwise) {
    const Value* v = m.find(key);
    if (!v) return otherwise;
    if (const T* held = v->as<T>()) return *held;
    bad(fmt::format("'{}' of a schema is of type {}", key, v->type_name()));
    return otherwise;
  }

  u16 version(const Map& m, std::string_view key, u64 otherwise) {
    const u64 number = read<u64>(m, key, otherwise);
    if (number < 1 || number > latest_) bad(fmt::format("'{}' of a schema is {}, allowed is 1 to {}", key, number, latest_));
    return static_cast<u16>(number);
  }

  std::vector<FormerName> names_before(const Map& m) {
    std::vector<FormerName> out;
    for (const Value& item : read<Array>(m, "renamed_from", {})) {
      const Map* former = item.as<Map>();
      if (!former) return bad("'renamed_from' of a schema holds something else than maps"), out;
      out.push_back({read<std::string>(*former, "name", {}), version(*former, "until", 0)});
      if (out.back().name.empty()) bad("'renamed_from' of a schema holds a map without a name");
    }
    if (!std::ranges::is_sorted(out, std::ranges::less_equal(), &FormerName::until)) bad("'renamed_from' of a schema is out of order");
    return out;
  }

  std::vector<FormerBounds> bounds_before(const Map& m) {
    std::vector<FormerBounds> out;
    for (const Value& item : read<Array>(m, "widened", {})) {
      const Map* former = item.as<Map>();
      if (!former) return bad("'widened' of a schema holds something else than maps"), out;
      out.push_back({.least = read<u64>(*former, "least", 0), .most = read<u64>(*former, "most", ~0ull),
                     .mask = read<u64>(*former, "mask", ~0ull), .until = version(*former, "until", 0)});
    }
    if (!std::ranges::is_sorted(out, std::ranges::less_equal(), &FormerBounds::until)) bad("'widened' of a schema is out of order");
    return out;
  }

  FieldSchema field(const Map& m) {
    FieldSchema f{.name = read<std::string>(m, "name", {}), .type = read<std::string>(m, "type", {}),
                  .unit = read<std::string>(m, "unit", {}), .help = read<std::string>(m, "help", {}),
                  .since = version(m, "since", 1), .hex = read(m, "hex", false), .least = read<u64>(m, "least", 0),
                  .most = read<u64>(m, "most", ~0ull), .mask = read<u64>(m, "mask", ~0ull),
                  .skippable = read(m, "skippable", false), .renamed_from = names_before(m), .widened = bounds_before(m),
                  .names = {}, .members = fields(m, "members")};
    if (f.name.empty() || f.type.empty()) bad("a schema field has no name or no type");
    if (!is_type(f.type)) bad(fmt::format("the schema field '{}' is of type '{}', which is none", printable(f.name), printable(f.type)));
    if (!f.members.empty() && !f.type.starts_with("record")) bad(fmt::format("the schema field '{}' is of type '{}' and has members", printable(f.name), f.type));
    for (const Value& name : read<Array>(m, "names", {})) {
      if (const std::string* text = name.as<std::string>()) f.names.push_back(*text);
      else bad("'names' of a schema holds something else than texts");
    }
    if (const Value* held = m.find("default")) {
      f.default_value = *held;
      if (!fits(*held, f)) bad(fmt::format("the default of the schema field '{}' is not a value of it", printable(f.name)));
    }
    return f;
  }

  std::vector<FieldSchema> fields(const Map& m, std::string_view key) {
    std::vector<FieldSchema> out;
    std::set<std::string_view> seen;
    for (const Value& item : list_of(m, key)) {
      const Map* map = item.as<Map>();
      if (!map) return bad("a schema field is not a map"), out;
      out.push_back(field(*map));
    }
    for (const FieldSchema& f : out)
      if (!seen.insert(f.name).second) bad(fmt::format("the schema has two fields '{}'", printable(f.name)));
    return out;
  }

  const Array& list_of(const Map& m, std::string_view key) {
    static const Array kNone;
    const Value* v = m.find(key);
    if (!v) return kNone;
    if (const Array* list = v->as<Array>()) return *list;
    bad(fmt::format("'{}' of a schema is of type {}", key, v->type_name()));
    return kNone;
  }

  u64 latest_ = 0xffff;  // of versions: that of the record
  const std::string& object_;
  std::string wrong_;
};

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
  if (schema.reshaped != 1) m.set("reshaped", u64{schema.reshaped});
  if (schema.skippable) m.set("skippable", true);
  Array fields;
  for (const FieldSchema& f : schema.fields) fields.push_back(field_to_value(f));
  m.set("fields", std::move(fields));
  return m;
}

Result<Schema> schema_from_value(const cbor::Value& value, const std::string& object) { return SchemaReader(object).schema(value); }

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
