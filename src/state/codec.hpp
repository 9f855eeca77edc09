// The walks over a layout: struct to CBOR record, record to struct, layout to schema.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "state/cbor.hpp"
#include "state/fifo.hpp"
#include "state/layout.hpp"
#include "state/schema.hpp"

namespace stasis::state {

using Problems = std::vector<Error>;  // everything wrong, not the first thing only

// What a reader knows while it walks: where it is, and where to complain.
struct LoadContext {
  std::string object;  // "device/isa/uart0"
  u16 version = 1;     // of the record
  Problems& problems;
  void refuse(std::string message, std::string hint = "the file is damaged or not ours") const {
    problems.push_back({ErrorCode::bad_file, object, std::move(message), std::move(hint)});
  }
};

namespace detail {

template <class T>
struct IsArray : std::false_type {};
template <class T, std::size_t N>
struct IsArray<std::array<T, N>> : std::true_type {};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsFifo : std::false_type {};
template <class T, std::size_t N>
struct IsFifo<Fifo<T, N>> : std::true_type {};

// Checks an integer against the field's declared range, mask and names.
bool integer_allowed(u64 value, const FieldInfo& info, const std::string& path, const LoadContext& context);
void wrong_type(std::string_view wanted, const cbor::Value& value, const std::string& path, const LoadContext& context);
void wrong_length(std::size_t found, std::size_t wanted, const std::string& path, const LoadContext& context);
// Names every member of `record` that no field claims.
void refuse_unknown(const cbor::Map& record, const std::vector<std::string_view>& known, const std::string& path,
                    const LoadContext& context);

}  // namespace detail

template <class T>
cbor::Value save_value(const T& value);
template <HasLayout S>
cbor::Value save_record(const S& state);
template <HasLayout S>
bool load_record(S& out, const cbor::Value& value, const std::string& path, const LoadContext& context);

template <class T>
cbor::Value save_value(const T& value) {
  if constexpr (HasLayout<T>) return save_record(value);
  else if constexpr (std::is_same_v<T, bool>) return cbor::Value(value);
  else if constexpr (std::is_enum_v<T>) return cbor::Value(static_cast<u64>(value));
  else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) return cbor::Value::integer(value);
  else if constexpr (std::is_integral_v<T>) return cbor::Value(static_cast<u64>(value));
  else if constexpr (std::is_same_v<T, std::string>) return cbor::Value(value);
  else if constexpr (detail::IsFifo<T>::value) {
    cbor::Array items;
    for (std::size_t i = 0; i < value.size(); ++i) items.push_back(save_value(value.slots[i]));
    return cbor::Value(std::move(items));
  } else {
    static_assert(detail::IsArray<T>::value || detail::IsVector<T>::value, "this type cannot be state");
    if constexpr (std::is_same_v<typename T::value_type, u8>) return cbor::Value(cbor::ByteString(value.begin(), value.end()));
    else {
      cbor::Array items;
      for (const auto& item : value) items.push_back(save_value(item));
      return cbor::Value(std::move(items));
    }
  }
}

template <HasLayout S>
cbor::Value save_record(const S& state) {
  static_assert(layout_is_whole<S>());
  cbor::Map record;
  std::apply([&](const auto&... f) {
    (record.members().emplace_back(std::string(f.info.name), save_value(state.*(f.kPointer))), ...);
  }, S::layout().fields);
  return cbor::Value(std::move(record));
}

template <class T>
bool load_value(T& out, const cbor::Value& value, const FieldInfo& info, const std::string& path,
                const LoadContext& context) {
  if constexpr (HasLayout<T>) return load_record(out, value, path, context);
  else if constexpr (std::is_same_v<T, bool>) {
    const bool* held = value.as<bool>();
    if (!held) return detail::wrong_type("boolean", value, path, context), false;
    out = *held;
    return true;
  } else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
    if (const u64* held = value.as<u64>(); held && std::in_range<T>(*held)) out = static_cast<T>(*held);
    else if (const auto* negative = value.as<cbor::Negative>();
             negative && negative->magnitude <= static_cast<u64>(std::numeric_limits<T>::max()))
      out = static_cast<T>(-1 - static_cast<i64>(negative->magnitude));
    else return detail::wrong_type(fmt::format("integer of {} bits", 8 * sizeof(T)), value, path, context), false;
    return true;
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    const u64* held = value.as<u64>();
    if (!held) return detail::wrong_type("integer", value, path, context), false;
    FieldInfo bounded = info;
    if constexpr (std::is_enum_v<T>) bounded.most = std::min<u64>(info.most, std::numeric_limits<std::underlying_type_t<T>>::max());
    else bounded.most = std::min<u64>(info.most, std::numeric_limits<T>::max());
    if (!detail::integer_allowed(*held, bounded, path, context)) return false;
    out = static_cast<T>(*held);
    return true;
  } else if constexpr (std::is_same_v<T, std::string>) {
    const std::string* held = value.as<std::string>();
    if (!held) return detail::wrong_type("text", value, path, context), false;
    if (held->size() > info.most) return detail::wrong_length(held->size(), info.most, path, context), false;
    out = *held;
    return true;
  } else if constexpr (!detail::IsFifo<T>::value && std::is_same_v<typename T::value_type, u8>) {
    const cbor::ByteString* held = value.as<cbor::ByteString>();
    if (!held) return detail::wrong_type("bytes", value, path, context), false;
    if constexpr (detail::IsVector<T>::value) out.resize(held->size() <= info.most ? held->size() : 0);
    if (held->size() != out.size()) return detail::wrong_length(held->size(), out.size(), path, context), false;
    std::copy(held->begin(), held->end(), out.begin());
    return true;
  } else {
    const cbor::Array* held = value.as<cbor::Array>();
    if (!held) return detail::wrong_type("array", value, path, context), false;
    bool ok = true;
    const auto load_items = [&](auto& slots) {
      for (std::size_t i = 0; i < held->size(); ++i)
        ok &= load_value(slots[i], (*held)[i], info, fmt::format("{}/{}", path, i), context);
    };
    if constexpr (detail::IsFifo<T>::value) {
      if (held->size() > out.slots.size()) return detail::wrong_length(held->size(), out.slots.size(), path, context), false;
      out = {};
      out.count = static_cast<u8>(held->size());
      load_items(out.slots);
    } else {
      if constexpr (detail::IsVector<T>::value) {
        if (held->size() > 65536) return detail::wrong_length(held->size(), 65536, path, context), false;
        out.resize(held->size());
      }
      if (held->size() != out.size()) return detail::wrong_length(held->size(), out.size(), path, context), false;
      load_items(out);
    }
    return ok;
  }
}

// Fills `out` by name. An absent field that is younger than the record keeps its default.
// False: `context.problems` says everything that is wrong, and `out` must not be used.
template <HasLayout S>
bool load_record(S& out, const cbor::Value& value, const std::string& path, const LoadContext& context) {
  static_assert(layout_is_whole<S>());
  const cbor::Map* record = value.as<cbor::Map>();
  if (!record) return detail::wrong_type("map", value, path, context), false;
  const std::size_t problems_before = context.problems.size();
  std::vector<std::string_view> known;
  const auto load_field = [&](const auto& f) {
    const std::string here = path.empty() ? std::string(f.info.name) : fmt::format("{}/{}", path, f.info.name);
    const cbor::Value* held = record->find(f.info.name);
    known.push_back(f.info.name);
    if (!held && !f.info.old_name.empty()) {
      held = record->find(f.info.old_name);
      known.push_back(f.info.old_name);
    }
    if (held) load_value(out.*(f.kPointer), *held, f.info, here, context);
    else if (f.info.since_version <= context.version) context.refuse(fmt::format("field '{}' is missing", here));
  };
  std::apply([&](const auto&... f) { (load_field(f), ...); }, S::layout().fields);
  detail::refuse_unknown(*record, known, path, context);
  return context.problems.size() == problems_before;
}

template <class T>
std::string type_text() {
  if constexpr (HasLayout<T>) return "record";
  else if constexpr (std::is_same_v<T, bool>) return "bool";
  else if constexpr (std::is_enum_v<T>) return type_text<std::underlying_type_t<T>>();
  else if constexpr (std::is_integral_v<T>) return fmt::format("{}{}", std::is_signed_v<T> ? 'i' : 'u', 8 * sizeof(T));
  else if constexpr (std::is_same_v<T, std::string>) return "text";
  else if constexpr (detail::IsArray<T>::value) return fmt::format("{}[{}]", type_text<typename T::value_type>(), std::tuple_size_v<T>);
  else if constexpr (detail::IsVector<T>::value) return type_text<typename T::value_type>() + "<>";
  else return fmt::format("{}<{}>", type_text<std::decay_t<decltype(T{}.slots[0])>>(), T{}.slots.size());
}

template <class S>
std::vector<FieldSchema> fields_schema();

template <class T>
std::vector<FieldSchema> members_schema() {
  if constexpr (HasLayout<T>) return fields_schema<T>();
  else if constexpr (detail::IsArray<T>::value || detail::IsVector<T>::value) return members_schema<typename T::value_type>();
  else if constexpr (detail::IsFifo<T>::value) return members_schema<std::decay_t<decltype(T{}.slots[0])>>();
  else return {};
}

template <class S>
std::vector<FieldSchema> fields_schema() {
  std::vector<FieldSchema> out;
  const auto add = [&](const auto& f) {
    using M = typename std::decay_t<decltype(f)>::Member;
    FieldSchema s{.name = std::string(f.info.name), .type = type_text<M>(), .unit = std::string(f.info.unit_name),
                  .help = std::string(f.info.help_text), .since = f.info.since_version, .hex = f.info.in_hex,
                  .least = f.info.least, .most = f.info.most, .mask = f.info.mask,
                  .renamed_from = std::string(f.info.old_name), .names = {}, .members = members_schema<M>()};
    for (std::string_view name : f.info.value_names) s.names.emplace_back(name);
    out.push_back(std::move(s));
  };
  std::apply([&](const auto&... f) { (add(f), ...); }, S::layout().fields);
  return out;
}

template <HasLayout S>
Schema schema_of() {
  static_assert(layout_is_whole<S>());
  return {.kind = std::string(S::layout().kind), .version = S::layout().version, .fields = fields_schema<S>()};
}

}  // namespace stasis::state
