// A record against the schema that travels with it: needs no layout, so it works for kinds of any Stasis.
#pragma once

#include "state/codec.hpp"

namespace stasis::state {

// A type as schemas spell it: what one element is, and how many there are.
struct TypeText {
  enum class Shape { one, exactly, at_most, any };
  std::string element;  // "u8" of "u8[16]"; "u8[4]" of "u8[4][2]"; the type itself when it is no array
  Shape shape = Shape::one;
  u64 count = 0;
};
TypeText type_of(std::string_view type);

// Adds a problem for everything that the schema does not allow: types, ranges, reserved bits, lengths, missing and unknown fields.
void check_record(const Schema& schema, const cbor::Value& record, const LoadContext& context);
void check_value(const FieldSchema& field, std::string_view type, const cbor::Value& value, const std::string& path, const LoadContext& context);

}  // namespace stasis::state
