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

constexpr char kHint[] = "the file is damaged or not ours";

std::unexpected<Error> bad(const std::string& object, std::string message) {
  return fail(ErrorCode::bad_file, object, std::move(message), kHint);
}

Result<const Map*> map_of(const Value& value, const std::string& object) {
  if (const Map* map = value.as<Map>()) return map;
  return bad(object, fmt::format("is of type {}, wanted is map", value.type_name()));
}

Result<const Array*> array_of(const Value& value, const std::string& object) {
  if (const Array* array = value.as<Array>()) return array;
  return bad(object, fmt::format("is of type {}, wanted is array", value.type_name()));
}

template <class T>
Result<const T*> member(const Map& map, std::string_view name, std::string_view type, const std::string& object) {
  const Value* value = map.find(name);
  if (!value) return bad(object, fmt::format("field '{}' is missing", name));
  if (const T* held = value->as<T>()) return held;
  return bad(object, fmt::format("field '{}' is of type {}, wanted is {}", name, value->type_name(), type));
}

Result<std::string> text(const Map& map, std::string_view name, const std::string& object) {
  STASIS_TRY_SET(const std::string* held, member<std::string>(map, name, "text", object));
  if (held->size() > 4096) return bad(object, fmt::format("field '{}' has {} bytes, allowed are 4096", name, held->size()));
  return *held;
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

Result<> number_is(const Map& map, std::string_view name, u64 wanted, const std::string& object) {
  STASIS_TRY_SET(const u64* held, member<u64>(map, name, "integer", object));
  if (*held == wanted) return {};
  return bad(object, fmt::format("field '{}' is {}, wanted is {}", name, *held, wanted));
}

u64 word_at(const ByteString& bytes, u64 at) {
  u64 value = 0;
  for (unsigned i = 8; i-- > 0;) value = value << 8 | bytes[at + i];
  return value;
}

}  // namespace

Value producer_body(const Producer& producer) {
  Map out;
  out.set("program", producer.program);
  out.set("version", producer.version);
  out.set("format", fmt::format("{}.{}", kFormatMajor, kFormatMinor));
  out.set("created_at", producer.created_at);
  return out;
}

Result<Producer> producer_from(const Value& body, const std::string& object) {
  STASIS_TRY_SET(const Map* map, map_of(body, object));
  STASIS_TRY(check_texts(body, object));
  Producer out;
  STASIS_TRY_SET(out.program, text(*map, "program", object));
  STASIS_TRY_SET(out.version, text(*map, "version", object));
  STASIS_TRY_SET(out.created_at, text(*map, "created_at", object));
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

Result<PartRecord> part_from(Value body, const std::string& path, const std::string& object) {
  STASIS_TRY_SET(const Map* map, map_of(body, object));
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

Value parts_body(const std::vector<const PartRecord*>& parts) {
  Array out;
  for (const PartRecord* part : parts) {
    Map item;
    item.set("path", part->path);
    item.set("kind", part->schema.kind);
    item.set("version", u64{part->schema.version});
    out.push_back(std::move(item));
  }
  return out;
}

Result<std::vector<ListedPart>> parts_from(const Value& body, const std::string& object) {
  STASIS_TRY_SET(const Array* array, array_of(body, object));
  STASIS_TRY(check_texts(body, object));
  std::vector<ListedPart> out;
  for (const Value& item : *array) {
    STASIS_TRY_SET(const Map* map, map_of(item, object));
    ListedPart part;
    STASIS_TRY_SET(part.path, text(*map, "path", object));
    STASIS_TRY_SET(part.kind, text(*map, "kind", object));
    STASIS_TRY_SET(const u64* version, member<u64>(*map, "version", "integer", object));
    part.version = *version;
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
    STASIS_TRY_SET(const Map* map, map_of(item, object));
    HostResource resource;
    STASIS_TRY_SET(resource.name, text(*map, "name", object));
    STASIS_TRY_SET(resource.kind, text(*map, "kind", object));
    STASIS_TRY_SET(resource.hint, text(*map, "hint", object));
    out.push_back(std::move(resource));
  }
  return out;
}

Value index_body(u64 pages, std::vector<u8> chunks) {
  Map out;
  out.set("encoding", "mapped");
  out.set("page_size", kPageSize);
  out.set("pages", pages);
  out.set("chunk_pages", kChunkPages);
  out.set("chunks", std::move(chunks));
  return out;
}

Result<Index> index_from(const Value& body, u64 pages, const std::string& object) {
  STASIS_TRY_SET(const Map* map, map_of(body, object));
  STASIS_TRY_SET(const std::string encoding, text(*map, "encoding", object));
  if (encoding != "mapped")
    return fail(ErrorCode::unsupported, object, fmt::format("field 'encoding' is '{}', known is 'mapped'", encoding),
                "it needs a newer Stasis");
  STASIS_TRY(number_is(*map, "page_size", kPageSize, object));
  STASIS_TRY(number_is(*map, "pages", pages, object));
  STASIS_TRY(number_is(*map, "chunk_pages", kChunkPages, object));
  STASIS_TRY_SET(const ByteString* chunks, member<ByteString>(*map, "chunks", "bytes", object));
  const u64 count = (pages + kChunkPages - 1) / kChunkPages;
  if (chunks->size() != count * kChunkRecord)
    return bad(object, fmt::format("field 'chunks' has {} bytes, wanted are {}", chunks->size(), count * kChunkRecord));
  Index out{std::vector<u64>(count), std::vector<u8>(count * sizeof(Digest))};
  for (u64 i = 0; i < count; ++i) {
    const u64 at = i * kChunkRecord;
    const u64 first_plane = word_at(*chunks, at), second_plane = word_at(*chunks, at + 8);
    const u64 in_chunk = std::min(pages - i * kChunkPages, kChunkPages);
    const u64 allowed = in_chunk == 64 ? ~0ull : (1ull << in_chunk) - 1;
    if (second_plane & allowed)
      return fail(ErrorCode::unsupported, object,
                  fmt::format("a page from number {} on is the same as another or in a parent snapshot", i * kChunkPages),
                  "it needs a newer Stasis");
    if ((first_plane | second_plane) & ~allowed) return bad(object, fmt::format("has states for pages after the last one, {}", pages - 1));
    out.nonzero[i] = first_plane;
    std::copy_n(chunks->begin() + static_cast<std::ptrdiff_t>(at + 16), sizeof(Digest),
                out.chunk_digests.begin() + static_cast<std::ptrdiff_t>(i * sizeof(Digest)));
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
