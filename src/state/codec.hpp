// The walks over a layout: struct to CBOR record, record to struct, layout to schema.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "state/cbor.hpp"
#include "state/fifo.hpp"
#include "state/fit.hpp"
#include "state/layout.hpp"
#include "state/schema.hpp"

namespace stasis::state {

using Problems = std::vector<Error>;  // everything wrong, not the first thing only

// What a reader knows while it walks: where it is, and where to complain.
struct LoadContext {
  std::string object;  // "device/isa/uart0"
  u16 version = 1;     // of the record
  Problems& problems;
  const Schema* schema = nullptr;  // that stands beside the record in its file: how a newer record is understood
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

// A walk through one record, or through one inside of it.
struct Walk {
  const LoadContext& context;
  std::string_view kind;  // of the whole record
  u16 known;              // its youngest version that this program has a layout for
  u16 version;            // of the fields here, as their own layout counts
  const std::vector<FieldSchema>* written = nullptr;  // the fields here as a newer record's schema has them
  bool newer() const { return context.version > known; }
  Walk inside(const FieldInfo& info, const FieldSchema* field) const {
    return {context, kind, known, info.inner_version(version), field ? &field->members : nullptr};
  }
};

// Checks an integer against the field's declared range, mask and names.
bool integer_allowed(u64 value, const FieldInfo& info, const std::string& path, const LoadContext& context);
void wrong_type(std::string_view wanted, const cbor::Value& value, const std::string& path, const LoadContext& context);
void wrong_length(std::size_t found, std::size_t wanted, const std::string& path, const LoadContext& context);

// Where a field of ours is in the record, whose version may be older or newer.
struct Place {
  std::string_view name;                // that it has in the record
  const FieldSchema* written = nullptr;  // in a newer record's schema
  bool gone = false;                    // a newer record has no such field any more
};
Place place_of(const FieldInfo& info, const Walk& walk);
// A field that the record should have had; in a newer one that dropped it, a skippable field keeps its default.
void refuse_missing(const FieldInfo& info, const Place& place, const std::string& path, const Walk& walk);
// A newer record's field whose numbers mean something else than ours.
bool refuse_other_meaning(const FieldInfo& info, const cbor::Value& held, const Place& place, const std::string& path, const Walk& walk);
// What was refused since `before` is in order by the newer record's own schema: a newer Stasis can read it.
void blame_version(const cbor::Value& held, const Place& place, std::size_t before, const Walk& walk);
// Names every member of `record` that no field claims, but those that a newer record's schema lets us skip.
void refuse_unknown(const cbor::Map& record, const std::vector<std::string_view>& known, const std::string& path, const Walk& walk);
// A newer record whose shape changed after our version: its names need not mean what ours mean.
bool refuse_reshaped(const Walk& walk);

}  // namespace detail

template <class T>
cbor::Value save_value(const T& value);
template <HasLayout S>
cbor::Value save_record(const S& state);
template <HasLayout S>
bool load_fields(S& out, const cbor::Value& value, const std::string& path, const detail::Walk& walk);

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
                const detail::Walk& walk) {
  const LoadContext& context = walk.context;
  if constexpr (HasLayout<T>) return load_fields(out, value, path, walk);
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
        ok &= load_value(slots[i], (*held)[i], info, fmt::format("{}/{}", path, i), walk);
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

template <HasLayout S>
bool load_fields(S& out, const cbor::Value& value, const std::string& path, const detail::Walk& walk) {
  static_assert(layout_is_whole<S>());
  const LoadContext& context = walk.context;
  const cbor::Map* record = value.as<cbor::Map>();
  if (!record) return detail::wrong_type("map", value, path, context), false;
  const std::size_t problems_before = context.problems.size();
  std::vector<std::string_view> known;
  const auto load_field = [&](const auto& f) {
    if (f.info.since_version > walk.version) return;  // an older record: the default
    const std::string here = path.empty() ? std::string(f.info.name) : fmt::format("{}/{}", path, f.info.name);
    const detail::Place place = detail::place_of(f.info, walk);
    const cbor::Value* held = place.gone ? nullptr : record->find(place.name);
    if (!held) return detail::refuse_missing(f.info, place, here, walk);
    known.push_back(place.name);
    if (detail::refuse_other_meaning(f.info, *held, place, here, walk)) return;
    const std::size_t before = context.problems.size();
    if (!load_value(out.*(f.kPointer), *held, f.info, here, walk.inside(f.info, place.written)))
      detail::blame_version(*held, place, before, walk);
  };
  std::apply([&](const auto&... f) { (load_field(f), ...); }, S::layout().fields);
  detail::refuse_unknown(*record, known, path, walk);
  return context.problems.size() == problems_before;
}

// Fills `out` by name; `path` is empty. A field that is younger than the record keeps its default. What a newer record
// has that we do not know is refused, field by field, or skipped where its schema says so.
// False: `context.problems` says everything that is wrong, and `out` must not be used.
template <HasLayout S>
bool load_record(S& out, const cbor::Value& value, const std::string& path, const LoadContext& context) {
  const u16 known = S::layout().version;
  const bool guided = context.schema && context.version > known;
  const detail::Walk walk{context, S::layout().kind, known, context.version, guided ? &context.schema->fields : nullptr};
  if (detail::refuse_reshaped(walk)) return false;
  return load_fields(out, value, path, walk);
}

// load_record() for a state that may have former shapes: a record as old as S::Previous is loaded as that and
// upgraded by the pure S::upgrade(Previous).
template <HasLayout S>
bool load_state(S& out, const cbor::Value& record, const LoadContext& context) {
  if constexpr (requires { typename S::Previous; }) {
    if (context.version <= S::Previous::layout().version) {
      typename S::Previous old{};
      if (!load_state(old, record, context)) return false;
      out = S::upgrade(old);
      return true;
    }
  }
  return load_record(out, record, "", context);
}

// The record of a part that has no state.
bool load_nothing(std::string_view kind, const cbor::Value& record, const LoadContext& context);

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

template <class S, class Outer>
std::vector<FieldSchema> fields_schema(const Outer& outer);

template <class T, class Outer>
std::vector<FieldSchema> members_schema(const Outer& outer) {
  if constexpr (HasLayout<T>) return fields_schema<T>(outer);
  else if constexpr (detail::IsArray<T>::value || detail::IsVector<T>::value || detail::IsFifo<T>::value)
    return members_schema<typename T::value_type>(outer);
  else return {};
}

// `outer`: versions of this layout to versions of the record that the schema is of.
template <class S, class Outer>
std::vector<FieldSchema> fields_schema(const Outer& outer) {
  std::vector<FieldSchema> out;
  const S fresh{};
  const auto add = [&](const auto& f) {
    using M = typename std::decay_t<decltype(f)>::Member;
    const FieldInfo& info = f.info;
    FieldSchema s{.name = std::string(info.name), .type = type_text<M>(), .unit = std::string(info.unit_name),
                  .help = std::string(info.help_text), .since = outer(info.since_version), .hex = info.in_hex,
                  .least = info.least, .most = info.most, .mask = info.mask, .skippable = info.may_skip, .names = {},
                  .members = members_schema<M>([&](u16 version) { return outer(info.outer_version(version)); })};
    for (std::string_view name : info.value_names) s.names.emplace_back(name);
    for (const OldName& old : info.old_names)
      if (old.until != 0) s.renamed_from.push_back({std::string(old.name), outer(old.until)});
    for (const OldBounds& old : info.old_bounds)
      if (old.until != 0) s.widened.push_back({old.least, old.most, old.mask, outer(old.until)});
    if (cbor::Value held = save_value(fresh.*(f.kPointer)); !is_zero(held, s)) s.default_value = std::move(held);
    out.push_back(std::move(s));
  };
  std::apply([&](const auto&... f) { (add(f), ...); }, S::layout().fields);
  return out;
}

template <HasLayout S>
Schema schema_of() {
  static_assert(layout_is_whole<S>());
  Schema out{.kind = std::string(S::layout().kind), .version = S::layout().version, .skippable = S::layout().may_skip,
             .fields = fields_schema<S>([](u16 version) { return version; })};
  if constexpr (requires { typename S::Previous; }) {
    static_assert(S::Previous::layout().kind == S::layout().kind, "a former shape is of the same kind");
    static_assert(S::Previous::layout().version < S::layout().version, "a new shape is a new version");
    out.reshaped = static_cast<u16>(S::Previous::layout().version + 1);
  }
  return out;
}

}  // namespace stasis::state
