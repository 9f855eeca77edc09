// Deterministic CBOR: writer and strict reader.
#include "state/cbor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/text.hpp"

namespace stasis::cbor {
namespace {

enum Major : u8 { kUnsigned, kNegative, kBytes, kText, kArray, kMap, kTag, kSimple };
constexpr unsigned kDeepest = 32;

void put_head(ByteString& out, Major major, u64 argument) {
  const u8 top = static_cast<u8>(major << 5);
  unsigned bytes = 0;
  if (argument < 24) {
    out.push_back(static_cast<u8>(top | argument));
    return;
  }
  if (argument <= 0xff) out.push_back(top | 24), bytes = 1;
  else if (argument <= 0xffff) out.push_back(top | 25), bytes = 2;
  else if (argument <= 0xffff'ffff) out.push_back(top | 26), bytes = 4;
  else out.push_back(top | 27), bytes = 8;
  while (bytes-- > 0) out.push_back(static_cast<u8>(argument >> (8 * bytes)));
}

// RFC 8949 4.2.1: keys in the order of their encodings, so shorter ones first.
bool key_before(std::string_view a, std::string_view b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

void put_text(ByteString& out, Major major, std::string_view text) {
  put_head(out, major, text.size());
  out.insert(out.end(), text.begin(), text.end());
}

}  // namespace

void Map::set(std::string_view key, Value value) {
  for (auto& [name, held] : members_)
    if (name == key) {
      held = std::move(value);
      return;
    }
  members_.emplace_back(std::string(key), std::move(value));
}

const Value* Map::find(std::string_view key) const {
  for (const auto& [name, held] : members_)
    if (name == key) return &held;
  return nullptr;
}

bool Map::operator==(const Map& other) const {
  if (members_.size() != other.members_.size()) return false;
  for (const auto& [name, held] : members_) {
    const Value* theirs = other.find(name);
    if (!theirs || !(*theirs == held)) return false;
  }
  return true;
}

Value Value::integer(i64 value) {
  return value >= 0 ? Value(static_cast<u64>(value)) : Value(Negative{static_cast<u64>(-1 - value)});
}

std::string_view Value::type_name() const {
  static constexpr std::string_view kNames[] = {"null", "boolean", "integer", "negative integer",
                                                "bytes", "text", "array", "map"};
  return kNames[storage_.index()];
}

void append(ByteString& out, const Value& value) {
  if (value.as<std::nullptr_t>()) out.push_back(0xf6);
  else if (auto* boolean = value.as<bool>()) out.push_back(*boolean ? 0xf5 : 0xf4);
  else if (auto* number = value.as<u64>()) put_head(out, kUnsigned, *number);
  else if (auto* negative = value.as<Negative>()) put_head(out, kNegative, negative->magnitude);
  else if (auto* bytes = value.as<ByteString>()) {
    put_head(out, kBytes, bytes->size());
    out.insert(out.end(), bytes->begin(), bytes->end());
  } else if (auto* text = value.as<std::string>()) put_text(out, kText, *text);
  else if (auto* array = value.as<Array>()) {
    put_head(out, kArray, array->size());
    for (const Value& item : *array) append(out, item);
  } else {
    std::vector<const Member*> sorted;
    for (const Member& member : value.as<Map>()->members()) sorted.push_back(&member);
    std::ranges::sort(sorted, [](auto* a, auto* b) { return key_before(a->first, b->first); });
    put_head(out, kMap, sorted.size());
    for (const Member* member : sorted) {
      put_text(out, kText, member->first);
      append(out, member->second);
    }
  }
}

ByteString encode(const Value& value) {
  ByteString out;
  append(out, value);
  return out;
}

class Reader {
 public:
  Reader(Bytes input, const std::string& object) : input_(input), object_(object) {}

  Result<Value> whole() {
    STASIS_TRY_SET(Value value, item(0));
    if (at_ != input_.size()) return bad(fmt::format("{} bytes follow the end of the record", input_.size() - at_));
    return value;
  }

 private:
  std::unexpected<Error> bad(std::string what) const {
    return fail(ErrorCode::bad_file, object_, fmt::format("is not deterministic CBOR at byte {}: {}", at_, what),
                "the file is damaged or not ours");
  }

  Result<u64> argument(u8 low) {
    if (low < 24) return low;
    if (low > 27) return bad("a reserved or indefinite length");
    const unsigned bytes = 1u << (low - 24);
    if (input_.size() - at_ < bytes) return bad("the input ends inside a number");
    u64 value = 0;
    for (unsigned i = 0; i < bytes; ++i) value = value << 8 | input_[at_++];
    const u64 least = bytes == 1 ? 24 : 1ull << (4 * bytes);
    if (value < least) return bad("a number is not in its shortest form");
    return value;
  }

  Result<std::string> text_of(u64 length) {
    if (length > input_.size() - at_) return bad("a string is longer than the input");
    std::string text(reinterpret_cast<const char*>(input_.data() + at_), length);
    if (!is_utf8(text)) return bad("a text is not UTF-8");
    at_ += length;
    return text;
  }

  Result<Value> item(unsigned depth) {
    if (depth > kDeepest) return bad("nested too deeply");
    if (at_ >= input_.size()) return bad("the input ends early");
    const u8 head = input_[at_++];
    const Major major = static_cast<Major>(head >> 5);
    if (major == kSimple) {
      if (head == 0xf4 || head == 0xf5) return Value(head == 0xf5);
      if (head == 0xf6) return Value();
      return bad(fmt::format("byte {:#04x} is no value we write", head));
    }
    if (major == kTag) return bad("tags are not used");
    STASIS_TRY_SET(const u64 length, argument(head & 31));
    switch (major) {
      case kUnsigned: return Value(length);
      case kNegative: return Value(Negative{length});
      case kText: {
        STASIS_TRY_SET(std::string text, text_of(length));
        return Value(std::move(text));
      }
      case kBytes: {
        if (length > input_.size() - at_) return bad("a string is longer than the input");
        const Bytes raw = input_.subspan(at_, length);
        at_ += length;
        return Value(ByteString(raw.begin(), raw.end()));
      }
      case kArray: return array(length, depth);
      default: return map(length, depth);
    }
  }

  Result<Value> array(u64 length, unsigned depth) {
    if (length > input_.size() - at_) return bad("an array is longer than the input");
    Array items;
    for (u64 i = 0; i < length; ++i) {
      STASIS_TRY_SET(Value value, item(depth + 1));
      items.push_back(std::move(value));
    }
    return Value(std::move(items));
  }

  Result<Value> map(u64 length, unsigned depth) {
    if (length > (input_.size() - at_) / 2) return bad("a map is longer than the input");
    Map out;
    std::string last;
    for (u64 i = 0; i < length; ++i) {
      if (at_ >= input_.size() || input_[at_] >> 5 != kText) return bad("a map key is not text");
      const u8 head = input_[at_++];
      STASIS_TRY_SET(const u64 size, argument(head & 31));
      STASIS_TRY_SET(std::string key, text_of(size));
      if (i > 0 && !key_before(last, key)) return bad(fmt::format("map key '{}' is out of order or doubled", key));
      last = key;
      STASIS_TRY_SET(Value value, item(depth + 1));
      out.members().emplace_back(std::move(key), std::move(value));
    }
    return Value(std::move(out));
  }

  Bytes input_;
  const std::string& object_;
  std::size_t at_ = 0;
};

Result<Value> decode(Bytes input, const std::string& object) { return Reader(input, object).whole(); }

}  // namespace stasis::cbor
