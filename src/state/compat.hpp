// Records for an older Stasis: `save --compat RELEASE`, and the same offline on a file.
//
// Everything here works on a schema and a value, wherever they are from. Only a record whose shape changed after the
// wanted version needs the part's own code, S::downgrade(), and so the live part (save_for, Part::capture_for).
// For each record of a snapshot, `machine` included:
//
//   ForRelease out = write_for_release(*release, path, schema, value, problems);   // or (…, path, part, problems)
//   if (out.outcome == ForRelease::written) put(path, out.record.schema, out.record.value);
//
// and when `problems` is not empty at the end, nothing is written: they name every field that forbids it.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "state/codec.hpp"

namespace stasis::state {

// A record and the schema that goes with it.
struct Written {
  Schema schema;
  cbor::Value value;
};

// The schema that version `version` of the record had: not before `schema.reshaped`, not after `schema.version`.
Schema schema_at(const Schema& schema, u16 version);

// The record as its version `version` was; a record that is no younger comes back as it is. Younger fields are left
// out where they hold their default or are skippable, renamed ones get their former names. None: `problems` grew.
std::optional<Written> write_for(const Schema& schema, const cbor::Value& value, u16 version, const std::string& object, Problems& problems);

// What each record kind's version was in a release.
struct KindVersion {
  std::string_view kind;
  u16 version = 1;
};
struct Release {
  std::string_view name;  // "1.0"
  std::span<const KindVersion> kinds;
  std::optional<u16> version_of(std::string_view kind) const;  // none: the release does not know the kind
};

struct ForRelease {
  enum Outcome { written, left_out, refused };  // left_out: the release does not know the kind, which is skippable
  Outcome outcome = refused;
  Written record{};
};
ForRelease write_for_release(const Release& release, const std::string& object, const Schema& schema, const cbor::Value& value,
                             Problems& problems);

namespace detail {
ForRelease write_known(const Release& release, const std::string& object, const Schema& schema, Problems& problems,
                       const std::function<std::optional<Written>(u16 version)>& write);
void refuse_downgrade(const Schema& schema, u16 version, const std::string& why, const std::string& object, Problems& problems);
}  // namespace detail

// write_for() of a state. A version from before its present shape comes from the pure
// `std::expected<Previous, std::string> S::downgrade(const S&)`, whose error names field and value: "field x is 3, …".
template <HasLayout S>
std::optional<Written> save_for(const S& state, u16 version, const std::string& object, Problems& problems) {
  if constexpr (requires { S::downgrade(state); }) {
    if (version <= S::Previous::layout().version) {
      const auto older = S::downgrade(state);
      if (older) return save_for(*older, version, object, problems);
      detail::refuse_downgrade(schema_of<S>(), version, older.error(), object, problems);
      return {};
    }
  }
  return write_for(schema_of<S>(), save_record(state), version, object, problems);
}

}  // namespace stasis::state
