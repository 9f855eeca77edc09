// Walking a record by its schema.
#include "state/schema_check.hpp"

#include "state/fit.hpp"

#include <charconv>

namespace stasis::state {
namespace {

constexpr u64 kMostItems = 65536;  // of an array without a length of its own, as load_value() has it

void check_fields(const std::vector<FieldSchema>& fields, const cbor::Value& record, const std::string& path, const LoadContext& context) {
  const cbor::Map* map = record.as<cbor::Map>();
  if (!map) return detail::wrong_type("map", record, path, context);
  std::vector<std::string_view> known;
  for (const FieldSchema& field : fields) {
    const std::string here = path.empty() ? field.name : fmt::format("{}/{}", path, field.name);
    const cbor::Value* held = map->find(field.name);
    known.push_back(field.name);
    if (held) check_value(field, field.type, *held, here, context);
    else context.refuse(fmt::format("field '{}' is missing", here));
  }
  // By the schema of its own file a record is never newer than what is known of it.
  detail::refuse_unknown(*map, known, path, {context, "", context.version, context.version});
}

void check_unsigned(const FieldSchema& field, unsigned bits, const cbor::Value& value, const std::string& path, const LoadContext& context) {
  const u64* held = value.as<u64>();
  if (!held) return detail::wrong_type("integer", value, path, context);
  const u64 widest = bits == 64 ? ~0ull : (1ull << bits) - 1;
  const FieldInfo bounds{.name = {}, .least = field.least, .most = std::min(field.most, widest), .mask = field.mask};
  (void)detail::integer_allowed(*held, bounds, path, context);
}

void check_signed(unsigned bits, const cbor::Value& value, const std::string& path, const LoadContext& context) {
  const u64 most = (1ull << (bits - 1)) - 1;
  const u64* held = value.as<u64>();
  const auto* negative = value.as<cbor::Negative>();
  if ((held && *held <= most) || (negative && negative->magnitude <= most)) return;
  detail::wrong_type(fmt::format("integer of {} bits", bits), value, path, context);
}

void check_length(const FieldSchema& field, const TypeText& type, u64 found, const std::string& path, const LoadContext& context) {
  const bool bytes = type.element == "u8";
  if (type.shape == TypeText::Shape::exactly && found != type.count) detail::wrong_length(found, type.count, path, context);
  if (type.shape == TypeText::Shape::at_most && found > type.count) detail::wrong_length(found, type.count, path, context);
  const u64 most = bytes ? field.most : kMostItems;
  if (type.shape == TypeText::Shape::any && found > most) detail::wrong_length(found, most, path, context);
}

void check_array(const FieldSchema& field, const TypeText& type, const cbor::Value& value, const std::string& path, const LoadContext& context) {
  if (const auto* bytes = value.as<cbor::ByteString>(); bytes && type.element == "u8" && type.shape != TypeText::Shape::at_most)
    return check_length(field, type, bytes->size(), path, context);
  const auto* items = value.as<cbor::Array>();
  // A queue of bytes is an array of integers in a record; other arrays of bytes are byte strings.
  if (!items || (type.element == "u8" && type.shape != TypeText::Shape::at_most))
    return detail::wrong_type(type.element == "u8" ? "bytes" : "array", value, path, context);
  check_length(field, type, items->size(), path, context);
  for (std::size_t i = 0; i < items->size(); ++i) check_value(field, type.element, (*items)[i], fmt::format("{}/{}", path, i), context);
}

}  // namespace

TypeText type_of(std::string_view type) {
  TypeText out{.element = std::string(type)};
  if (type.empty() || (type.back() != ']' && type.back() != '>')) return out;
  const std::size_t open = type.rfind(type.back() == ']' ? '[' : '<');
  if (open == type.npos || open == 0) return out;
  const std::string_view digits = type.substr(open + 1, type.size() - open - 2);
  out.shape = type.back() == ']' ? TypeText::Shape::exactly : digits.empty() ? TypeText::Shape::any : TypeText::Shape::at_most;
  std::from_chars(digits.data(), digits.data() + digits.size(), out.count);
  out.element = type.substr(0, open);
  return out;
}

void check_value(const FieldSchema& field, std::string_view type, const cbor::Value& value, const std::string& path, const LoadContext& context) {
  if (const TypeText array = type_of(type); array.shape != TypeText::Shape::one) return check_array(field, array, value, path, context);
  if (type == "record") return check_fields(field.members, value, path, context);
  if (type == "bool") return value.as<bool>() ? void() : detail::wrong_type("boolean", value, path, context);
  if (type == "text") {
    const auto* text = value.as<std::string>();
    if (!text) return detail::wrong_type("text", value, path, context);
    if (text->size() > field.most) detail::wrong_length(text->size(), field.most, path, context);
    return;
  }
  const unsigned bits = integer_bits(type);
  if (bits == 0) return context.refuse(fmt::format("{} has the type '{}', which is none", path, type));
  if (type.front() == 'u') check_unsigned(field, bits, value, path, context);
  else check_signed(bits, value, path, context);
}

void check_record(const Schema& schema, const cbor::Value& record, const LoadContext& context) {
  check_fields(schema.fields, record, "", context);
}

}  // namespace stasis::state
