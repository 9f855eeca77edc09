// State declared once: a Layout names every member of an aggregate, and from it come
// saving, restoring, checking and the schema. A member that the layout forgets does
// not compile. Example:
//
//   struct PmTimerState {
//     u64 origin_ns = 0;
//     u16 status = 0;
//     static constexpr auto layout() {
//       using S = PmTimerState;
//       return state::Layout("acpi.pm_timer", 1,
//                            state::field<&S::origin_ns>("origin_ns").unit("ns"),
//                            state::field<&S::status>("status").hex().allow(1));
//     }
//   };
//
// Members may be: bool, (un)signed integers, enums (declare names() or range()), std::array, std::vector,
// state::Fifo, std::string, and other structs with a layout.
#pragma once

#include <array>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "base/types.hpp"

namespace stasis::state {

struct FieldInfo {
  std::string_view name;
  std::string_view unit_name{};
  std::string_view help_text{};
  std::string_view old_name{};
  std::span<const std::string_view> value_names{};
  u64 least = 0;
  u64 most = ~0ull;
  u64 mask = ~0ull;
  u16 since_version = 1;
  bool in_hex = false;
};

template <auto Pointer>
struct Field;

template <class S, class M, M S::*Pointer>
struct Field<Pointer> {
  using Struct = S;
  using Member = M;
  static constexpr M S::*kPointer = Pointer;
  FieldInfo info;

  constexpr Field unit(std::string_view text) const { return with([&](FieldInfo& i) { i.unit_name = text; }); }
  constexpr Field help(std::string_view text) const { return with([&](FieldInfo& i) { i.help_text = text; }); }
  constexpr Field hex() const { return with([](FieldInfo& i) { i.in_hex = true; }); }
  constexpr Field allow(u64 bits) const { return with([&](FieldInfo& i) { i.mask = bits; }); }
  constexpr Field range(u64 least, u64 most) const {
    return with([&](FieldInfo& i) { i.least = least, i.most = most; });
  }
  // Elements of a vector or characters of a text are bounded by most_items of range(); values by names.
  constexpr Field names(std::span<const std::string_view> texts) const {
    return with([&](FieldInfo& i) { i.value_names = texts, i.most = texts.size() - 1; });
  }
  constexpr Field since(u16 version) const { return with([&](FieldInfo& i) { i.since_version = version; }); }
  constexpr Field renamed_from(std::string_view name) const { return with([&](FieldInfo& i) { i.old_name = name; }); }

 private:
  template <class Change>
  constexpr Field with(Change change) const {
    Field copy = *this;
    change(copy.info);
    return copy;
  }
};

template <auto Pointer>
constexpr Field<Pointer> field(std::string_view name) {
  return {FieldInfo{.name = name}};
}

template <class... Fields>
struct Layout {
  std::string_view kind;
  u16 version;
  std::tuple<Fields...> fields;
  constexpr Layout(std::string_view k, u16 v, Fields... f) : kind(k), version(v), fields(f...) {}
  static constexpr std::size_t kCount = sizeof...(Fields);
};

template <class T>
concept HasLayout = requires { T::layout(); };

namespace detail {
struct Anything {
  template <class T>
  operator T() const;
};
template <class T, class... Args>
concept BracesFrom = requires { T{std::declval<Args>()...}; };

template <class T, class... Args>
consteval std::size_t member_count() {
  if constexpr (BracesFrom<T, Args..., Anything>) return member_count<T, Args..., Anything>();
  else return sizeof...(Args);
}

template <class S>
consteval bool names_differ() {
  constexpr auto layout = S::layout();
  bool ok = true;
  std::apply([&](const auto&... f) {
    const std::array<std::string_view, sizeof...(f)> names{f.info.name...};
    for (std::size_t i = 0; i < names.size(); ++i)
      for (std::size_t j = i + 1; j < names.size(); ++j)
        if (names[i] == names[j] || names[i].empty()) ok = false;
  }, layout.fields);
  return ok;
}
}  // namespace detail

// The law as a compile-time check: every member of the aggregate is named, once.
template <class S>
consteval bool layout_is_whole() {
  static_assert(std::is_aggregate_v<S>, "a state is an aggregate");
  static_assert(detail::member_count<S>() == decltype(S::layout())::kCount, "the layout does not name every member");
  static_assert(detail::names_differ<S>(), "two fields have one name");
  return true;
}

}  // namespace stasis::state
