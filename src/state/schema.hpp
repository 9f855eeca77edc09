// A layout as data: what a record's fields are called, what they hold and mean.
// It travels in every snapshot, and the loader and the inspector both use it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "state/cbor.hpp"

namespace stasis::state {

// `name` before version `until` of the record.
struct FormerName {
  std::string name;
  u16 until = 0;
  bool operator==(const FormerName&) const = default;
};

// Allowed before version `until` of the record; what is allowed now is no less.
struct FormerBounds {
  u64 least = 0, most = ~0ull, mask = ~0ull;
  u16 until = 0;
  bool operator==(const FormerBounds&) const = default;
};

// All versions in a schema are those of the whole record, in records inside of it too.
struct FieldSchema {
  std::string name;
  std::string type;   // "bool" "u8".."u64" "i8".."i64" "text" "record"; "[n]" arrays; "<n>" up to n
  std::string unit;   // "ns", "Hz", … or empty
  std::string help;   // one line, or empty
  u16 since = 1;      // first record version that has it
  bool hex = false;   // how people like to read it
  u64 least = 0;      // allowed range of each integer, inclusive
  u64 most = ~0ull;
  u64 mask = ~0ull;   // bits that may be set
  bool skippable = false;  // a reader that does not know it may leave it out
  std::optional<cbor::Value> default_value{};  // of a record from before it; none: the type's zero (state/fit.hpp)
  std::vector<FormerName> renamed_from{};      // ascending by `until`
  std::vector<FormerBounds> widened{};         // ascending by `until`
  std::vector<std::string> names;     // of the values 0, 1, …; empty: plain number
  std::vector<FieldSchema> members;   // of a record
  bool operator==(const FieldSchema&) const = default;
};

struct Schema {
  std::string kind;  // names the chip: "acpi.pm_timer"
  u16 version = 1;
  u16 reshaped = 1;        // the version that gave the record its present shape: older ones are other fields
  bool skippable = false;  // a reader that does not know the kind may leave the record out
  std::vector<FieldSchema> fields;
  bool operator==(const Schema&) const = default;
};

cbor::Value to_value(const Schema& schema);
Result<Schema> schema_from_value(const cbor::Value& value, const std::string& object);

// The field at a slash path inside a record ("channel/1/mode"), and its schema; null when there is none.
struct Found {
  const cbor::Value* value = nullptr;
  const FieldSchema* schema = nullptr;
};
Found find(const Schema& schema, const cbor::Value& record, std::string_view path);
// A value as a person reads it: hex, unit and name by its schema. Nested records are not expanded.
std::string show(const cbor::Value& value, const FieldSchema& schema);

}  // namespace stasis::state
