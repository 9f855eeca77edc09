// Fields set from typed text, and records checked by their own schema.
#include "state/assign.hpp"

#include <gtest/gtest.h>

#include <algorithm>

using namespace stasis;
namespace {

using state::FieldSchema;
using state::Schema;

FieldSchema field(std::string name, std::string type) {
  FieldSchema out;
  out.name = std::move(name), out.type = std::move(type);
  return out;
}

Schema schema() {
  FieldSchema mode = field("mode", "u8"), bits = field("bits", "u16"), label = field("label", "text"), inner = field("inner", "record[2]");
  mode.names = {"idle", "busy", "stuck"}, mode.most = 2;
  bits.mask = 0xf0;
  label.most = 5;
  inner.members = {field("a", "u32"), field("on", "bool")};
  inner.members[0].least = 3, inner.members[0].most = 9;
  return {.kind = "test.part", .version = 1,
          .fields = {mode, bits, label, inner, field("raw", "u8[4]"), field("queue", "u8<3>"), field("words", "u16<>"), field("offset", "i32")}};
}

cbor::Value map(std::initializer_list<cbor::Member> members) {
  cbor::Map out;
  for (const auto& [name, value] : members) out.set(name, value);
  return out;
}

cbor::Value record() {
  return map({{"mode", u64{0}}, {"bits", u64{0}}, {"label", "abc"},
              {"inner", cbor::Array{map({{"a", u64{3}}, {"on", false}}), map({{"a", u64{9}}, {"on", true}})}},
              {"raw", cbor::ByteString{1, 2, 3, 4}}, {"queue", cbor::Array{u64{7}}}, {"words", cbor::Array{u64{1}, u64{2}}},
              {"offset", cbor::Value::integer(-5)}});
}

std::string shown(const cbor::Value& value, std::string_view path) {
  const Schema known = schema();
  const auto found = state::find(known, value, path);
  return found.value ? state::show(*found.value, *found.schema) : "none";
}

// What a field shows after `text` was put at `path`; the error's text when it was refused.
std::string after(std::string_view path, std::string_view text, std::string_view shown_path = {}) {
  cbor::Value value = record();
  const auto set = state::assign(schema(), value, path, text, "test");
  if (!set) {
    EXPECT_EQ(value, record()) << path;
    return set.error().text();
  }
  return shown(value, shown_path.empty() ? path : shown_path);
}

std::vector<std::string> problems(const cbor::Value& value) {
  state::Problems found;
  state::check_record(schema(), value, {.object = "test", .version = 1, .problems = found});
  std::vector<std::string> out;
  for (const Error& problem : found) out.push_back(problem.message);
  return out;
}

TEST(Assign, each_type_as_people_write_it) {
  EXPECT_EQ(after("mode", "2"), "stuck (2)");
  EXPECT_EQ(after("mode", "busy"), "busy (1)");
  EXPECT_EQ(after("bits", "0xF0"), "240");
  EXPECT_EQ(after("label", "a=b"), "\"a=b\"");
  EXPECT_EQ(after("label", ""), "\"\"");
  EXPECT_EQ(after("inner/1/a", "4"), "4");
  EXPECT_EQ(after("inner/0/on", "true"), "true");
  EXPECT_EQ(after("raw", "de ad:beef"), "de ad be ef");
  EXPECT_EQ(after("raw/2", "0xff", "raw"), "01 02 ff 04");
  EXPECT_EQ(after("queue", "1,2,0x3"), "[1, 2, 3]");
  EXPECT_EQ(after("queue", ""), "[]");
  EXPECT_EQ(after("words/1", "65535", "words"), "[1, 65535]");
  EXPECT_EQ(after("offset", "-7"), "-7");
}

TEST(Assign, only_what_was_named_changes) {
  cbor::Value value = record();
  ASSERT_TRUE(state::assign(schema(), value, "inner/0/a", "5", "test"));
  EXPECT_NE(value, record());
  ASSERT_TRUE(state::assign(schema(), value, "inner/0/a", "3", "test"));
  EXPECT_EQ(value, record());
}

TEST(Assign, refusals_say_what_is_allowed) {
  const std::pair<std::pair<const char*, const char*>, const char*> cases[] = {
      {{"mode", "3"}, "allowed is 0 to 2"}, {{"mode", "lazy"}, "idle, busy, stuck"}, {{"mode", "256"}, "0 to 2"},
      {{"bits", "1"}, "reserved bits"}, {{"bits", "0x1"}, "0xf0"}, {{"bits", "12x"}, "u16"}, {{"bits", ""}, "u16"}, {{"bits", "-1"}, "u16"},
      {{"bits", "99999999999999999999"}, "u16"}, {{"label", "123456"}, "allowed are 5"}, {{"label", "\xff"}, "UTF-8"},
      {{"inner/0/a", "2"}, "3 to 9"}, {{"inner/0/a", "10"}, "3 to 9"}, {{"inner/0/on", "yes"}, "true or false"},
      {{"inner/2/a", "3"}, "0 to 1"}, {{"inner/0", "3"}, "record"}, {{"inner", ""}, "set a field below it"}, {{"inner/0/b", "3"}, "inner/0/b"},
      {{"raw", "0102"}, "allowed are 4"}, {{"raw", "010203zz"}, "hexadecimal"}, {{"raw", "010203040"}, "hexadecimal"}, {{"raw/4", "1"}, "0 to 3"},
      {{"raw/1", "256"}, "0 to 255"}, {{"raw/1/2", "1"}, "no field"}, {{"queue", "1,2,3,4"}, "allowed are 3"}, {{"queue", "1,,2"}, "commas"},
      {{"words/0", "65536"}, "0 to 65535"}, {{"offset", "2147483648"}, "32 bits"}, {{"offset", "-2147483649"}, "32 bits"},
      {{"nothing", "1"}, "nothing"}, {{"", "1"}, "whole record"}, {{"inner/-1/a", "3"}, "inner/-1/a"}};
  for (const auto& [words, says] : cases) EXPECT_NE(after(words.first, words.second).find(says), std::string::npos) << words.first << "=" << words.second << ": " << after(words.first, words.second);
}

TEST(SchemaCheck, a_good_record_has_no_problems) { EXPECT_TRUE(problems(record()).empty()); }

TEST(SchemaCheck, everything_wrong_is_told) {
  cbor::Value value = record();
  cbor::Map& members = *value.as<cbor::Map>();
  members.set("mode", u64{3});
  members.set("bits", "text");
  members.set("raw", cbor::ByteString{1});
  members.set("queue", cbor::Array{u64{1}, u64{300}});
  members.set("offset", u64{1} << 31);
  members.set("more", true);
  std::erase_if(members.members(), [](const cbor::Member& member) { return member.first == "label"; });
  const auto found = problems(value);
  const char* wanted[] = {"mode is 3", "bits is of type text", "field 'label' is missing", "raw holds 1 items", "queue/1 is 300", "offset is of type", "field 'more' is unknown"};
  ASSERT_EQ(found.size(), std::size(wanted));
  for (const char* each : wanted)
    EXPECT_TRUE(std::ranges::any_of(found, [&](const std::string& text) { return text.starts_with(each); })) << each;
}

TEST(SchemaCheck, a_schema_may_be_hostile) {
  for (const char* type : {"", "[", "u8[", "]", "<>", "u7", "record[", "u8[x]", "u8[99999999999999999999]", "u8[4][2]", "i", "u"}) {
    state::Problems found;
    state::check_value(field("f", type), type, cbor::Value(u64{1}), "f", {.object = "test", .version = 1, .problems = found});
    EXPECT_EQ(found.size(), 1u) << type;
  }
}

}  // namespace
