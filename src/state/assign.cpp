// Typed text to values, by the schema.
#include "state/assign.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/text.hpp"

namespace stasis::state {
namespace {

constexpr std::size_t kMostShown = 64;

std::string shown(std::string_view text) {
  return text.size() <= kMostShown ? printable(text) : printable(text.substr(0, kMostShown)) + "…";
}

// What is being set: the place, its schema, and the type of what stands there.
struct Target {
  const FieldSchema* field = nullptr;
  std::string type;
  cbor::Value* value = nullptr;   // null: one byte of `bytes`
  cbor::ByteString* bytes = nullptr;
  std::size_t byte = 0;
};

std::optional<u64> number_in(std::string_view text) {
  const int base = text.starts_with("0x") || text.starts_with("0X") ? 16 : 10;
  if (base == 16) text.remove_prefix(2);
  u64 out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return out;
}

std::string allowed(const FieldSchema& field, std::string_view type) {
  if (type == "bool") return "true or false";
  if (!field.names.empty()) return fmt::format("{} or 0 to {}", fmt::join(field.names, ", "), field.names.size() - 1);
  return fmt::format("an integer ({}), decimal or with 0x", type);
}

std::optional<cbor::Value> scalar_from(const FieldSchema& field, std::string_view type, std::string_view text) {
  if (type == "bool") {
    if (text == "true" || text == "1") return cbor::Value(true);
    if (text == "false" || text == "0") return cbor::Value(false);
    return {};
  }
  for (u64 i = 0; i < field.names.size(); ++i)
    if (field.names[i] == text) return cbor::Value(i);
  if (type.front() == 'i' && text.starts_with('-')) {
    const auto magnitude = number_in(text.substr(1));
    if (!magnitude || *magnitude == 0 || *magnitude > 1ull << 63) return {};
    return cbor::Value::integer(static_cast<i64>(0 - *magnitude));
  }
  if (const auto number = number_in(text)) return cbor::Value(*number);
  return {};
}

std::optional<cbor::ByteString> bytes_from(std::string_view text) {
  cbor::ByteString out;
  if (text.starts_with("0x")) text.remove_prefix(2);
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == ' ' || text[at] == ':') {
      ++at;
      continue;
    }
    u8 byte = 0;
    if (text.size() - at < 2) return {};
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + at + 2, byte, 16);
    if (error != std::errc() || end != text.data() + at + 2) return {};
    out.push_back(byte);
    at += 2;
  }
  return out;
}

std::optional<cbor::Value> list_from(const FieldSchema& field, const std::string& element, std::string_view text) {
  cbor::Array out;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    auto item = scalar_from(field, element, text.substr(0, comma));
    if (!item) return {};
    out.push_back(std::move(*item));
    text = comma == text.npos ? std::string_view() : text.substr(comma + 1);
  }
  return cbor::Value(std::move(out));
}

Result<cbor::Value> parse(const Target& target, std::string_view text, const std::string& object, std::string_view path) {
  const FieldSchema& field = *target.field;
  const auto bad = [&](std::string what) {
    return fail(ErrorCode::usage, object, fmt::format("{}: '{}' is not {}", path, shown(text), what), "write PATH=VALUE with such a value");
  };
  const TypeText type = type_of(target.type);
  if (type.element == "record" || type_of(type.element).shape != TypeText::Shape::one)
    return fail(ErrorCode::usage, object, fmt::format("{} is of type {}, which is not set as a whole", path, target.type),
                fmt::format("set a field below it: {}/…", path));
  if (type.shape == TypeText::Shape::one) {
    if (target.type == "text") {
      if (!is_utf8(text)) return bad("text in UTF-8");
      return cbor::Value(std::string(text));
    }
    if (auto value = scalar_from(field, target.type, text)) return std::move(*value);
    return bad(allowed(field, target.type));
  }
  if (target.value && target.value->as<cbor::ByteString>()) {
    if (auto bytes = bytes_from(text)) return cbor::Value(std::move(*bytes));
    return bad("a byte string: pairs of hexadecimal digits");
  }
  if (auto list = list_from(field, type.element, text)) return std::move(*list);
  return bad(fmt::format("a list with commas, each {}", allowed(field, type.element)));
}

// Down the path; each step is a member of a record or the number of an element.
Result<Target> find_target(const Schema& schema, cbor::Value& record, std::string_view path, const std::string& object) {
  const auto none = [&](std::string_view step, std::string hint) {
    return fail(ErrorCode::not_found, object, fmt::format("has no field '{}' ('{}' is not there)", path, step), std::move(hint));
  };
  const std::vector<FieldSchema>* fields = &schema.fields;
  Target at;
  at.value = &record;
  for (std::string_view rest = path; !rest.empty();) {
    const std::size_t slash = rest.find('/');
    const std::string_view step = rest.substr(0, slash);
    rest = slash == rest.npos ? std::string_view() : rest.substr(slash + 1);
    if (!at.value) return none(step, "a byte has no fields");
    if (auto* map = at.value->as<cbor::Map>()) {
      const auto member = std::ranges::find(map->members(), step, &cbor::Member::first);
      const auto field = std::ranges::find(*fields, step, &FieldSchema::name);
      if (member == map->members().end() || field == fields->end()) return none(step, fmt::format("'stasis snapshot show FILE {}' lists its fields", object));
      at.field = &*field;
      at.type = field->type;
      at.value = &member->second;
      fields = &field->members;
      continue;
    }
    const auto index = number_in(step);
    auto* items = at.value->as<cbor::Array>();
    auto* bytes = at.value->as<cbor::ByteString>();
    const std::size_t size = items ? items->size() : bytes ? bytes->size() : 0;
    if (!index || *index >= size) return none(step, size ? fmt::format("elements 0 to {} are there", size - 1) : "it has no elements");
    at.type = type_of(at.type).element;
    at.bytes = bytes;
    at.byte = *index;
    at.value = items ? &(*items)[*index] : nullptr;
  }
  if (!at.field) return fail(ErrorCode::usage, object, "is a whole record", fmt::format("name a field of it: {}/FIELD=VALUE", object));
  return at;
}

}  // namespace

Result<> assign(const Schema& schema, cbor::Value& record, std::string_view path, std::string_view text, const std::string& object) {
  STASIS_TRY_SET(const Target target, find_target(schema, record, path, object));
  STASIS_TRY_SET(cbor::Value value, parse(target, text, object, path));
  Problems problems;
  check_value(*target.field, target.type, value, std::string(path), {.object = object, .version = schema.version, .problems = problems});
  if (!problems.empty()) return fail(ErrorCode::usage, object, problems.front().message, "choose a value that is allowed");
  if (target.value) *target.value = std::move(value);
  else (*target.bytes)[target.byte] = static_cast<u8>(*value.as<u64>());
  return {};
}

}  // namespace stasis::state
