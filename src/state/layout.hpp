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
//
// A member's initialiser is its power-on value, and what a record from before the field is given: from the
// first release on it stays as it is. How a layout may change: docs/decisions/0009-compatible-records.md.
#pragma once

#include <array>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "base/types.hpp"

namespace stasis::state {

// What a field was called before version `until` of its record.
struct OldName {
  std::string_view name{};
  u16 until = 0;
};

// What a field allowed before version `until` of its record.
struct OldBounds {
  u64 least = 0, most = ~0ull, mask = ~0ull;
  u16 until = 0;
};

// From version `outer` of a record on, the records inside of this field are of version `inner`.
struct Follows {
  u16 inner = 0, outer = 0;
};

// At most this many renames, widenings and versions of an inner record: a constant, so that layouts are constants.
inline constexpr std::size_t kMostChanges = 4;

struct FieldInfo {
  std::string_view name;
  std::string_view unit_name{};
  std::string_view help_text{};
  std::array<OldName, kMostChanges> old_names{};      // ascending by `until`; those with 0 are unused
  std::array<OldBounds, kMostChanges> old_bounds{};   // likewise
  std::array<Follows, kMostChanges> inner_versions{}; // ascending; none: the inner record counts as the outer one
  std::span<const std::string_view> value_names{};
  u64 least = 0;
  u64 most = ~0ull;
  u64 mask = ~0ull;
  u16 since_version = 1;
  bool in_hex = false;
  bool may_skip = false;

  // Versions of the record that holds this field, and of the records inside of it.
  constexpr u16 inner_version(u16 outer) const {
    if (inner_versions[0].outer == 0) return outer;
    u16 inner = 1;
    for (const Follows& step : inner_versions)
      if (step.outer != 0 && step.outer <= outer) inner = step.inner;
    return inner;
  }
  constexpr u16 outer_version(u16 inner) const {
    if (inner <= 1 || inner_versions[0].outer == 0) return inner;
    for (const Follows& step : inner_versions)
      if (step.outer != 0 && step.inner >= inner) return step.outer;
    return 0xffff;  // no version of the outer record has it yet
  }
  // Its name in records of that version.
  constexpr std::string_view name_at(u16 version) const {
    for (const OldName& old : old_names)
      if (old.until > version) return old.name;
    return name;
  }
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
  // Version `since` of the record gave it its present name, or the next of its former ones: oldest first.
  constexpr Field renamed_from(std::string_view name, u16 since) const {
    return with([&](FieldInfo& i) { add(i.old_names, OldName{name, since}); });
  }
  // Version `since` of the record widened what is allowed; before, it was this. Oldest first.
  constexpr Field widened(u16 since, OldBounds before) const {
    before.until = since;
    return with([&](FieldInfo& i) { add(i.old_bounds, before); });
  }
  // For a member with a layout of its own whose versions are not those of this record: version `outer` of this
  // one brought version `inner` of that one. Oldest first.
  constexpr Field follows(u16 inner, u16 outer) const {
    return with([&](FieldInfo& i) { add(i.inner_versions, Follows{inner, outer}); });
  }
  // The guest is no worse off for a reader that does not know this field, or for a record without it.
  constexpr Field skippable() const { return with([](FieldInfo& i) { i.may_skip = true; }); }

 private:
  template <class Entry>
  static constexpr void add(std::array<Entry, kMostChanges>& list, Entry entry) {
    for (Entry& slot : list)
      if (unused(slot)) {
        slot = entry;
        return;
      }
    static_cast<void>(list.at(kMostChanges));  // more than kMostChanges: no constant expression
  }
  static constexpr bool unused(const OldName& e) { return e.until == 0; }
  static constexpr bool unused(const OldBounds& e) { return e.until == 0; }
  static constexpr bool unused(const Follows& e) { return e.outer == 0; }
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
  bool may_skip = false;
  constexpr Layout(std::string_view k, u16 v, Fields... f) : kind(k), version(v), fields(f...) {}
  // The guest is no worse off for a reader that does not know the whole record, or for a machine without it.
  constexpr Layout skippable() const {
    Layout copy = *this;
    copy.may_skip = true;
    return copy;
  }
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

template <class T>
struct Innermost {
  using Type = T;
};
template <class T>
  requires(!HasLayout<T> && requires { typename T::value_type; })
struct Innermost<T> : Innermost<typename T::value_type> {};

// The youngest change that the layout declares, counted in its own versions.
template <class S>
consteval u16 youngest_change() {
  constexpr auto layout = S::layout();
  u16 youngest = 1;
  const auto look = [&](const auto& f) {
    using Inner = typename Innermost<typename std::decay_t<decltype(f)>::Member>::Type;
    u16 change = f.info.since_version;
    for (const OldName& old : f.info.old_names) change = old.until > change ? old.until : change;
    for (const OldBounds& old : f.info.old_bounds) change = old.until > change ? old.until : change;
    if constexpr (HasLayout<Inner>) {
      const u16 inner = f.info.outer_version(youngest_change<Inner>());
      change = inner > change ? inner : change;
    }
    youngest = change > youngest ? change : youngest;
  };
  std::apply([&](const auto&... f) { (look(f), ...); }, layout.fields);
  return youngest;
}

template <class S>
consteval bool changes_ascend() {
  constexpr auto layout = S::layout();
  bool ok = true;
  const auto look = [&](const FieldInfo& info) {
    u16 last = info.since_version;
    for (const OldName& old : info.old_names) {
      if (old.until != 0 && old.until <= last) ok = false;
      if (old.until != 0) last = old.until;
    }
    last = info.since_version;
    for (const OldBounds& old : info.old_bounds) {
      if (old.until != 0 && old.until <= last) ok = false;
      if (old.until != 0) last = old.until;
    }
  };
  std::apply([&](const auto&... f) { (look(f.info), ...); }, layout.fields);
  return ok;
}
}  // namespace detail

// The law as a compile-time check: every member of the aggregate is named, once.
template <class S>
consteval bool layout_is_whole() {
  static_assert(std::is_aggregate_v<S>, "a state is an aggregate");
  static_assert(detail::member_count<S>() == decltype(S::layout())::kCount, "the layout does not name every member");
  static_assert(detail::names_differ<S>(), "two fields have one name");
  static_assert(detail::youngest_change<S>() <= S::layout().version, "a change is younger than the layout: raise its version");
  static_assert(detail::changes_ascend<S>(), "renamed_from() and widened(): after since(), oldest first");
  return true;
}

}  // namespace stasis::state
