// CBOR values and records of a snapshot as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "snapshot/reader.hpp"

namespace stasis::cli {

using Json = nlohmann::ordered_json;

// Bytes are hexadecimal text; integers are exact. Byte strings longer than `most_bytes`: their length only.
Json to_json(const cbor::Value& value, std::size_t most_bytes = 1 << 16);
std::string text_of(const Json& json);  // indented, with a line end

}  // namespace stasis::cli
