// Values against a field of a schema, wherever that schema came from.
#pragma once

#include "state/schema.hpp"

namespace stasis::state {

// Of the type and inside the range, mask and length that the field allows, records inside of it included.
bool fits(const cbor::Value& value, const FieldSchema& field);

// What a record from before the field is taken to hold: its `default_value`, or else the zero of its type, which is
// 0, false, "", n of these for "[n]", nothing for "<n>" and "<>", and for a record the defaults of its members.
bool is_default(const cbor::Value& value, const FieldSchema& field);
// The same with no look at `default_value`.
bool is_zero(const cbor::Value& value, const FieldSchema& field);

// "u16", "i16": 16. Zero: no integer.
unsigned integer_bits(std::string_view type);
// What the `type` of a field may be (docs/format.md, "Bodies").
bool is_type(std::string_view type);

// `type` without its last "[n]", "<n>" or "<>".
struct ArrayType {
  std::string_view item;  // empty: no array
  u64 count = 0;          // "[n]", "<n>"; all ones for "<>"
  bool exact = false;     // "[n]"
};
ArrayType array_type(std::string_view type);

}  // namespace stasis::state
