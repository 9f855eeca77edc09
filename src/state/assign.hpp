// Giving a field of a record another value, as people type it.
#pragma once

#include "state/schema_check.hpp"

namespace stasis::state {

// Sets the field at `path` ("rip", "channel/1/mode", "cmos/20") of a record. By its type: integers in decimal, in
// hexadecimal with 0x, or by the name of the value; true and false; texts as they are; byte strings as hexadecimal digits;
// lists of integers with commas. `object` is the record's path, for errors. Errors: not_found, usage (with what is allowed).
Result<> assign(const Schema& schema, cbor::Value& record, std::string_view path, std::string_view text, const std::string& object);

}  // namespace stasis::state
