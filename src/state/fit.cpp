// Values against a field of a schema. A type is text from a file: nothing is allocated for what it says.
#include "state/fit.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

namespace stasis::state {
namespace {

using cbor::Array;
using cbor::ByteString;
using cbor::Map;
using cbor::Value;

bool integer_fits(const Value& value, const FieldSchema& field, std::string_view type) {
  const unsigned bits = integer_bits(type);
  if (bits == 0) return false;
  const u64 half = 1ull << (bits - 1);  // of the values of a signed one
  if (const auto* negative = value.as<cbor::Negative>()) return type[0] == 'i' && negative->magnitude < half;
  const u64* number = value.as<u64>();
  if (!number) return false;
  if (type[0] == 'i') return *number < half;
  return (bits == 64 || *number >> bits == 0) && *number >= field.least && *number <= field.most && (*number & ~field.mask) == 0;
}

bool record_fits(const Value& value, const FieldSchema& field) {
  const Map* map = value.as<Map>();
  if (!map || map->members().size() != field.members.size()) return false;
  return std::ranges::all_of(field.members, [&](const FieldSchema& member) {
    const Value* held = map->find(member.name);
    return held && fits(*held, member);
  });
}

bool value_fits(const Value& value, const FieldSchema& field, std::string_view type) {
  const ArrayType array = array_type(type);
  if (array.item.empty()) {
    if (type == "bool") return value.as<bool>() != nullptr;
    if (type == "record") return record_fits(value, field);
    const std::string* text = value.as<std::string>();
    return type == "text" ? text && text->size() <= field.most : integer_fits(value, field, type);
  }
  const auto size_fits = [&](u64 size) { return array.exact ? size == array.count : size <= array.count; };
  if (array.item == "u8" && (array.exact || array.count == ~0ull)) {
    const ByteString* bytes = value.as<ByteString>();
    return bytes && size_fits(bytes->size()) && (array.exact || bytes->size() <= field.most);
  }
  const Array* items = value.as<Array>();
  return items && size_fits(items->size()) &&
         std::ranges::all_of(*items, [&](const Value& item) { return value_fits(item, field, array.item); });
}

bool zero(const Value& value, const FieldSchema& field, std::string_view type) {
  if (const ArrayType array = array_type(type); !array.item.empty()) {
    const u64 wanted = array.exact ? array.count : 0;
    if (const ByteString* bytes = value.as<ByteString>())
      return bytes->size() == wanted && std::ranges::all_of(*bytes, [](u8 byte) { return byte == 0; });
    const Array* items = value.as<Array>();
    return items && items->size() == wanted &&
           std::ranges::all_of(*items, [&](const Value& item) { return zero(item, field, array.item); });
  }
  if (const bool* boolean = value.as<bool>()) return !*boolean;
  if (const u64* number = value.as<u64>()) return *number == 0;
  if (const std::string* text = value.as<std::string>()) return text->empty();
  const Map* map = value.as<Map>();
  return map && map->members().size() == field.members.size() &&
         std::ranges::all_of(field.members, [&](const FieldSchema& member) {
           const Value* held = map->find(member.name);
           return held && is_default(*held, member);
         });
}

}  // namespace

unsigned integer_bits(std::string_view type) {
  for (const auto& [name, bits] : {std::pair{"8", 8u}, {"16", 16u}, {"32", 32u}, {"64", 64u}})
    if (type.size() > 1 && (type.front() == 'u' || type.front() == 'i') && type.substr(1) == name) return bits;
  return 0;
}

bool is_type(std::string_view type) {
  for (ArrayType array = array_type(type); !array.item.empty(); array = array_type(type)) type = array.item;
  return type == "bool" || type == "text" || type == "record" || integer_bits(type) != 0;
}

ArrayType array_type(std::string_view type) {
  const bool exact = type.ends_with(']');
  if (!exact && !type.ends_with('>')) return {};
  const std::size_t open = type.find_last_of(exact ? '[' : '<');
  if (open == type.npos || open == 0) return {};
  ArrayType out{.item = type.substr(0, open), .count = ~0ull, .exact = exact};
  const std::string_view digits = type.substr(open + 1, type.size() - open - 2);
  if (digits.empty() && !exact) return out;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out.count);
  if (error != std::errc() || end != digits.data() + digits.size()) return {};
  return out;
}

bool fits(const Value& value, const FieldSchema& field) { return value_fits(value, field, field.type); }
bool is_zero(const Value& value, const FieldSchema& field) { return zero(value, field, field.type); }
bool is_default(const Value& value, const FieldSchema& field) {
  return field.default_value ? value == *field.default_value : is_zero(value, field);
}

}  // namespace stasis::state
