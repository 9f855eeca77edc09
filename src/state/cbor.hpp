// CBOR (RFC 8949), the core deterministic subset of section 4.2 only: shortest
// integers, definite lengths, map keys that are text and strictly ascending. One
// value has one encoding, so a reader can refuse every byte that we did not write.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.hpp"
#include "base/types.hpp"

namespace stasis::cbor {

class Value;
using ByteString = std::vector<u8>;
using Array = std::vector<Value>;
using Member = std::pair<std::string, Value>;

// Members in any order; encoding sorts them.
class Map {
 public:
  void set(std::string_view key, Value value);   // replaces a member of that name
  const Value* find(std::string_view key) const;  // null when absent
  const std::vector<Member>& members() const { return members_; }
  std::vector<Member>& members() { return members_; }
  bool operator==(const Map& other) const;

 private:
  std::vector<Member> members_;
};

struct Negative {  // -1 - magnitude, as CBOR major type 1
  u64 magnitude;
  bool operator==(const Negative&) const = default;
};

class Value {
 public:
  using Storage = std::variant<std::nullptr_t, bool, u64, Negative, ByteString, std::string, Array, Map>;
  Value() : storage_(nullptr) {}
  Value(bool value) : storage_(value) {}
  Value(u64 value) : storage_(value) {}
  Value(int) = delete;  // say u64 or Value::integer
  Value(std::string value) : storage_(std::move(value)) {}
  Value(std::string_view value) : storage_(std::string(value)) {}
  Value(const char* value) : storage_(std::string(value)) {}
  Value(ByteString value) : storage_(std::move(value)) {}
  Value(Array value) : storage_(std::move(value)) {}
  Value(Map value) : storage_(std::move(value)) {}
  static Value integer(i64 value);

  template <class T>
  const T* as() const { return std::get_if<T>(&storage_); }
  template <class T>
  T* as() { return std::get_if<T>(&storage_); }
  const Storage& storage() const { return storage_; }
  std::string_view type_name() const;  // "integer", "text", …
  bool operator==(const Value&) const = default;

 private:
  explicit Value(Negative value) : storage_(value) {}
  friend class Reader;
  Storage storage_;
};

ByteString encode(const Value& value);
void append(ByteString& out, const Value& value);

// Refuses (bad_file): anything not deterministic, trailing bytes, nesting deeper than 32.
// Allocates at most a small multiple of input.size(). `object` is the object of the error.
Result<Value> decode(Bytes input, const std::string& object);

}  // namespace stasis::cbor
