// What is inside the sections, as CBOR.
#include "snapshot/bodies.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.hpp"

namespace stasis::snapshot {
namespace {

using cbor::Array;
using cbor::ByteString;
using cbor::Map;
using cbor::Value;

std::unexpected<Error> bad(const std::string& object, std::string message) {
  return fail(ErrorCode::bad_file, object, std::move(message), kDamagedOrForeign);
}

Result<const Array*> array_of(const Value& value, const std::string& object) {
  if (const Array* array = value.as<Array>()) return array;
  return bad(object, fmt::format("is of type {}, wanted is array", value.type_name()));
}

// Texts that people are shown as they are: on a terminal, control characters are commands.
Result<> check_texts(const Value& value, const std::string& object) {
  const auto check = [&](const std::string& text) -> Result<> {
    if (printable(text) == text && text.find('\n') == text.npos) return {};
    return bad(object, fmt::format("the text '{}' has control characters", text.substr(0, 64)));
  };
  if (const auto* text = value.as<std::string>()) return check(*text);
  if (const Array* array = value.as<Array>())
    for (const Value& item : *array) STASIS_TRY(check_texts(item, object));
  if (const Map* map = value.as<Map>())
    for (const auto& [name, item] : map->members()) {
      STASIS_TRY(check(name));
      STASIS_TRY(check_texts(item, object));
    }
  return {};
}

}  // namespace

Result<> BodyMap::is_map() const {
  if (map_) return {};
  return bad(object_, fmt::format("is of type {}, wanted is map", body_.type_name()));
}

template <class T>
Result<const T*> BodyMap::member(std::string_view name, std::string_view type) const {
  STASIS_TRY(is_map());
  const Value* value = map_->find(name);
  if (!value) return bad(object_, fmt::format("field '{}' is missing", name));
  if (const T* held = value->as<T>()) return held;
  return bad(object_, fmt::format("field '{}' is of type {}, wanted is {}", name, value->type_name(), type));
}

Result<std::string> BodyMap::text(std::string_view name) const {
  STASIS_TRY_SET(const std::string* held, member<std::string>(name, "text"));
  if (held->size() > kMostText) return bad(object_, fmt::format("field '{}' has {} bytes, allowed are {}", name, held->size(), kMostText));
  return *held;
}

Result<u64> BodyMap::number(std::string_view name) const {
  STASIS_TRY_SET(const u64* held, member<u64>(name, "integer"));
  return *held;
}

Result<> BodyMap::number_is(std::string_view name, u64 wanted) const {
  STASIS_TRY_SET(const u64 held, number(name));
  if (held == wanted) return {};
  return bad(object_, fmt::format("field '{}' is {}, wanted is {}", name, held, wanted));
}

Result<const ByteString*> BodyMap::bytes(std::string_view name) const { return member<ByteString>(name, "bytes"); }

std::unexpected<Error> BodyMap::wrong_size(std::string_view name, u64 found, u64 wanted) const {
  return bad(object_, fmt::format("field '{}' has {} bytes, wanted are {}", name, found, wanted));
}

Value producer_body(const Producer& producer) {
  Map out;
  out.set("program", producer.program);
  out.set("version", producer.version);
  out.set("format", fmt::format("{}.{}", kFormatMajor, kFormatMinor));
  out.set("created_at", producer.created_at);
  return out;
}

Result<Producer> producer_from(const Value& body, const std::string& object) {
  STASIS_TRY(check_texts(body, object));
  const BodyMap map(body, object);
  Producer out;
  STASIS_TRY_SET(out.program, map.text("program"));
  STASIS_TRY_SET(out.version, map.text("version"));
  STASIS_TRY(map.text("format"));
  STASIS_TRY_SET(out.created_at, map.text("created_at"));
  return out;
}

// A map of two, spelt out because a state may be large: keys in deterministic order, shorter first.
ByteString part_body(const state::Schema& schema, Bytes state) {
  ByteString out{0xa2};
  out.reserve(state.size() + 4096);
  cbor::append(out, "state");
  out.insert(out.end(), state.begin(), state.end());
  cbor::append(out, "schema");
  cbor::append(out, state::to_value(schema));
  return out;
}

// The state stands between its key and the schema's. It is not encoded again: a kernel's takes longer to encode than to digest.
Digest state_digest(Bytes body, const Value& value) {
  const Map* map = value.as<Map>();
  const Value* schema = map ? map->find("schema") : nullptr;
  if (!schema || !map->find("state") || map->members().size() != 2) return {};  // which part_from() refuses
  const u64 begin = 1 + cbor::encode("state").size(), end = body.size() - cbor::encode("schema").size() - cbor::encode(*schema).size();
  return digest_of(body.subspan(begin, end - begin));
}

Result<PartRecord> part_from(Value body, const std::string& path, const std::string& object) {
  STASIS_TRY(BodyMap(body, object).is_map());
  const Map* map = body.as<Map>();
  const Value* schema = map->find("schema");
  if (!schema || !map->find("state")) return bad(object, "field 'schema' or 'state' is missing");
  if (map->members().size() != 2) return bad(object, fmt::format("has {} fields, wanted are 'schema' and 'state'", map->members().size()));
  STASIS_TRY(check_texts(*schema, object));
  STASIS_TRY_SET(state::Schema parsed, state::schema_from_value(*schema, object));
  if (parsed.kind.empty() || parsed.version == 0) return bad(object, "the schema has no kind or no version");
  for (auto& [name, value] : body.as<Map>()->members())
    if (name == "state") return PartRecord{path, std::move(parsed), std::move(value)};
  return bad(object, "field 'state' is missing");
}

Value parts_body(const std::vector<ListedPart>& parts) {
  Array out;
  for (const ListedPart& part : parts) {
    Map item;
    item.set("path", part.path);
    item.set("kind", part.kind);
    item.set("version", part.version);
    item.set("state", ByteString(part.state.begin(), part.state.end()));
    if (part.inherited) item.set("inherited", true);
    out.push_back(std::move(item));
  }
  return out;
}

Result<std::vector<ListedPart>> parts_from(const Value& body, bool with_states, const std::string& object) {
  STASIS_TRY_SET(const Array* array, array_of(body, object));
  STASIS_TRY(check_texts(body, object));
  std::vector<ListedPart> out;
  for (const Value& item : *array) {
    const BodyMap map(item, object);
    ListedPart part;
    STASIS_TRY_SET(part.path, map.text("path"));
    STASIS_TRY_SET(part.kind, map.text("kind"));
    STASIS_TRY_SET(part.version, map.number("version"));
    if (part.version == 0 || part.version > 65535) return bad(object, fmt::format("'{}' has version {}, allowed are 1 to 65535", part.path, part.version));
    if (with_states) {
      STASIS_TRY_SET(part.state, map.fixed_bytes<16>("state"));
    }
    if (map.has("inherited")) {
      const bool* inherited = map.find<bool>("inherited");
      if (!inherited || !*inherited) return bad(object, fmt::format("'{}' has an 'inherited' that is not true", part.path));
      part.inherited = true;
    }
    if (!is_section_name(part.path) || is_reserved_name(part.path))
      return bad(object, fmt::format("'{}' is no path of a part", part.path));
    if (!out.empty() && part.path <= out.back().path)
      return bad(object, fmt::format("'{}' is out of order or doubled", part.path));
    out.push_back(std::move(part));
  }
  return out;
}

Value host_body(const std::vector<HostResource>& host) {
  Array out;
  for (const HostResource& resource : host) {
    Map item;
    item.set("name", resource.name);
    item.set("kind", resource.kind);
    item.set("hint", resource.hint);
    out.push_back(std::move(item));
  }
  return out;
}

Result<std::vector<HostResource>> host_from(const Value& body, const std::string& object) {
  STASIS_TRY_SET(const Array* array, array_of(body, object));
  STASIS_TRY(check_texts(body, object));
  std::vector<HostResource> out;
  for (const Value& item : *array) {
    const BodyMap map(item, object);
    HostResource resource;
    STASIS_TRY_SET(resource.name, map.text("name"));
    STASIS_TRY_SET(resource.kind, map.text("kind"));
    STASIS_TRY_SET(resource.hint, map.text("hint"));
    out.push_back(std::move(resource));
  }
  return out;
}

Value parent_body(const ParentLink& parent) {
  Map out;
  out.set("content", ByteString(parent.content.begin(), parent.content.end()));
  out.set("uuid", ByteString(parent.uuid.begin(), parent.uuid.end()));
  out.set("file", parent.file);
  return out;
}

Result<ParentLink> parent_from(const Value& body, const std::string& object) {
  STASIS_TRY(check_texts(body, object));
  const BodyMap map(body, object);
  ParentLink out;
  STASIS_TRY_SET(out.content, map.fixed_bytes<16>("content"));
  STASIS_TRY_SET(out.uuid, map.fixed_bytes<16>("uuid"));
  STASIS_TRY_SET(out.file, map.text("file"));
  if (out.file.find('/') != out.file.npos || out.file == "..") return bad(object, fmt::format("field 'file' is '{}', wanted is a name without a folder", out.file));
  return out;
}

Value encryption_body(const EncryptionInfo& info) {
  Map out;
  out.set("cipher", kCipherName);
  out.set("salt", ByteString(info.salt.begin(), info.salt.end()));
  out.set("check", ByteString(info.check.begin(), info.check.end()));
  return out;
}

Result<EncryptionInfo> encryption_from(const Value& body, const std::string& object) {
  const BodyMap map(body, object);
  STASIS_TRY_SET(const std::string cipher, map.text("cipher"));
  if (cipher != kCipherName)
    return fail(ErrorCode::unsupported, object, fmt::format("field 'cipher' is '{}', known is '{}'", printable(cipher), kCipherName), "it needs a newer Stasis");
  EncryptionInfo out;
  STASIS_TRY_SET(out.salt, map.fixed_bytes<16>("salt"));
  STASIS_TRY_SET(out.check, map.fixed_bytes<16>("check"));
  return out;
}

Value notes_body(const std::vector<Note>& notes) {
  Array out;
  for (const Note& note : notes) {
    Map item;
    item.set("at", note.at);
    item.set("by", note.by);
    item.set("text", note.text);
    out.push_back(std::move(item));
  }
  return out;
}

Result<std::vector<Note>> notes_from(const Value& body, const std::string& object) {
  STASIS_TRY_SET(const Array* array, array_of(body, object));
  STASIS_TRY(check_texts(body, object));
  std::vector<Note> out;
  for (const Value& item : *array) {
    const BodyMap map(item, object);
    Note note;
    STASIS_TRY_SET(note.at, map.text("at"));
    STASIS_TRY_SET(note.by, map.text("by"));
    STASIS_TRY_SET(note.text, map.text("text"));
    out.push_back(std::move(note));
  }
  return out;
}

// RFC 8949, 3: every item has a head; only strings have bytes that are no heads.
Result<Value> decode_body(Bytes body, const std::string& object) {
  u64 items = 0;
  for (u64 at = 0; at < body.size();) {
    const u8 head = body[at++], major = head >> 5, low = head & 31;
    const u64 extra = low < 24 ? 0 : low <= 27 ? 1u << (low - 24) : 0;
    if (extra > body.size() - at) break;
    u64 argument = low < 24 ? low : 0;
    for (u64 i = 0; i < extra; ++i) argument = argument << 8 | body[at++];
    if (major == 2 || major == 3) {
      if (argument > body.size() - at) break;
      at += argument;
    }
    if (++items > kMostItems) return bad(object, fmt::format("holds more than {} values", kMostItems));
  }
  return cbor::decode(body, object);  // which says what is wrong where the count gave up
}

}  // namespace stasis::snapshot
