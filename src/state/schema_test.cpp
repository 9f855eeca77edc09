// Schemas as they travel, what fits them, and the gate over schema.lock.
#include <gtest/gtest.h>

#include <algorithm>

#include "state/codec.hpp"
#include "state/fit.hpp"
#include "state/lock.hpp"

using namespace stasis;
using state::Change;
using state::FieldSchema;
namespace {

struct InnerState {
  u8 a = 1;
  u16 b = 0;
  static constexpr auto layout() {
    using S = InnerState;
    return state::Layout("test.inner", 2, state::field<&S::a>("a").range(1, 9), state::field<&S::b>("b").since(2));
  }
};
struct WholeState {
  u32 word = 7;
  i8 offset = -5;
  std::array<u8, 4> raw{};
  std::array<u8, 2> key{1, 2};
  InnerState plain{};
  InnerState special{.a = 4};
  std::array<InnerState, 2> pair{};
  std::vector<u8> blob{};
  state::Fifo<u8, 3> queue{};
  std::string name = "a b";
  bool open = true;
  static constexpr auto layout() {
    using S = WholeState;
    return state::Layout("test.whole", 5, state::field<&S::word>("word").hex().allow(0xff).unit("TSC ticks").help("a word"),
                         state::field<&S::offset>("offset"), state::field<&S::raw>("raw"), state::field<&S::key>("key"),
                         state::field<&S::plain>("plain").follows(2, 4), state::field<&S::special>("special").follows(2, 4),
                         state::field<&S::pair>("pair").follows(2, 4), state::field<&S::blob>("blob").range(0, 16),
                         state::field<&S::queue>("queue"), state::field<&S::name>("name").renamed_from("label", 2).renamed_from("title", 3),
                         state::field<&S::open>("open").since(3).skippable().help("whether"))
        .skippable();
  }
};

const FieldSchema& field(const state::Schema& schema, std::string_view name) { return *std::ranges::find(schema.fields, name, &FieldSchema::name); }

TEST(Schema, says_all_there_is) {
  const state::Schema s = state::schema_of<WholeState>();
  EXPECT_EQ(field(s, "word").default_value, cbor::Value(u64{7}));
  EXPECT_EQ(field(s, "offset").default_value, cbor::Value::integer(-5));
  EXPECT_EQ(field(s, "key").default_value, cbor::Value(cbor::ByteString{1, 2}));
  EXPECT_EQ(field(s, "open").default_value, cbor::Value(true));
  for (const char* zero : {"raw", "plain", "pair", "blob", "queue"}) EXPECT_FALSE(field(s, zero).default_value) << zero;
  ASSERT_TRUE(field(s, "special").default_value);
  EXPECT_EQ(*field(s, "special").default_value->as<cbor::Map>()->find("a"), cbor::Value(u64{4}));
  EXPECT_EQ(field(s, "plain").members[0].default_value, cbor::Value(u64{1}));
  EXPECT_EQ(field(s, "plain").members[1].since, 4);  // in versions of the whole record
  EXPECT_EQ(field(s, "name").renamed_from, (std::vector<state::FormerName>{{"label", 2}, {"title", 3}}));
  const auto back = state::schema_from_value(*cbor::decode(cbor::encode(state::to_value(s)), "x"), "x");
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(*back, s);
}

TEST(Schema, a_broken_one_is_refused) {
  const auto refused = [](const char* key, cbor::Value value, bool in_field) {
    cbor::Value schema = state::to_value(state::schema_of<WholeState>());
    auto* map = schema.as<cbor::Map>();
    if (in_field) {
      cbor::Array fields = *map->find("fields")->as<cbor::Array>();
      fields[0].as<cbor::Map>()->set(key, value);
      map->set("fields", fields);
    } else {
      map->set(key, value);
    }
    return !state::schema_from_value(schema, "x");
  };
  EXPECT_FALSE(refused("further", true, true));  // a later format may say more
  EXPECT_TRUE(refused("version", u64{65537}, false));
  EXPECT_TRUE(refused("reshaped", u64{6}, false));
  EXPECT_TRUE(refused("fields", true, false));
  EXPECT_TRUE(refused("since", u64{0}, true));
  EXPECT_TRUE(refused("since", u64{0x10001}, true));
  EXPECT_TRUE(refused("least", "0", true));
  EXPECT_TRUE(refused("skippable", u64{1}, true));
  EXPECT_TRUE(refused("name", "raw", true));  // twice
  EXPECT_TRUE(refused("name", "", true));
  EXPECT_TRUE(refused("renamed_from", "old", true));
  EXPECT_TRUE(refused("names", cbor::Array{u64{1}}, true));
  EXPECT_TRUE(refused("members", cbor::Array{u64{1}}, true));
}

TEST(Schema, what_fits) {
  const state::Schema s = state::schema_of<WholeState>();
  const cbor::Value whole = state::save_record(WholeState{});
  for (const FieldSchema& f : s.fields) {
    const cbor::Value& held = *whole.as<cbor::Map>()->find(f.name);
    EXPECT_TRUE(state::fits(held, f)) << f.name;
    EXPECT_TRUE(state::is_default(held, f)) << f.name;
    EXPECT_FALSE(state::fits(cbor::Value(), f)) << f.name;
  }
  EXPECT_FALSE(state::fits(u64{0x100}, field(s, "word")));
  EXPECT_FALSE(state::fits(u64{128}, field(s, "offset")));
  EXPECT_TRUE(state::fits(cbor::Value::integer(-128), field(s, "offset")));
  EXPECT_FALSE(state::fits(cbor::Value::integer(-129), field(s, "offset")));
  EXPECT_FALSE(state::fits(cbor::ByteString(5), field(s, "raw")));
  EXPECT_TRUE(state::fits(cbor::ByteString(16), field(s, "blob")));
  EXPECT_FALSE(state::fits(cbor::ByteString(17), field(s, "blob")));
  EXPECT_FALSE(state::fits(cbor::Array(4, u64{1}), field(s, "queue")));
  EXPECT_FALSE(state::is_default(cbor::ByteString{0, 1, 0, 0}, field(s, "raw")));
  for (const char* type : {"u7", "u", "[3]", "u8[", "u8[x]", "u64>", "float", "u8[99999999999999999999]"})
    EXPECT_FALSE(state::fits(u64{1}, {.name = "x", .type = type})) << type;
}

// ---- the gate -----------------------------------------------------------------------------------------------------

constexpr const char* kBefore =
    "k v2 a u8 range=0..3\nk v2 b u16 mask=0xff default=7\nk v2 mode u8 range=0..1 names=off,on\nk v2 in record\n"
    "k v2 in/x u8 was=w@2\nk v2 t u64 unit=\"TSC ticks\"\n";

// What the gate says after `from` became `to` in the layout above; "…": nothing.
std::string answer(std::string_view from, std::string_view to, bool new_version, bool all = false) {
  std::string after = kBefore;
  for (std::size_t at = after.find(from); at != std::string::npos; at = all ? after.find(from, at + to.size()) : std::string::npos)
    after.replace(at, from.size(), to);
  if (new_version)
    for (std::size_t at = after.find("k v2"); at != std::string::npos; at = after.find("k v2")) after.replace(at, 4, "k v3");
  const auto verdicts = state::judge(kBefore, after);
  EXPECT_LE(verdicts.size(), 1u);
  return verdicts.empty() ? "same" : verdicts[0].line();
}

#define EXPECT_ANSWER(start, ...)                       \
  do {                                                  \
    const std::string line = answer(__VA_ARGS__);       \
    EXPECT_TRUE(line.starts_with(start)) << line;       \
  } while (false)

TEST(Gate, what_is_safe) {
  EXPECT_EQ(answer("", "", false), "same");
  EXPECT_ANSWER("k: safe: version 3, its fields are the same", "", "", true);
  EXPECT_ANSWER("k: safe: field 'c' was added in version 3", "k v2 t u64", "k v2 c u8 since=3\nk v2 t u64", true);
  EXPECT_ANSWER("k: safe: field 'in/y' was added in version 3", "k v2 t u64", "k v2 in/y u8 since=3\nk v2 t u64", true);
  EXPECT_ANSWER("k: safe: field 'r' was added in version 3", "k v2 t u64", "k v2 r record since=3\nk v2 r/z u8\nk v2 t u64", true);
  EXPECT_ANSWER("k: safe: field 'b' was renamed to 'c' in version 3", " b u16 mask=0xff", " c u16 mask=0xff was=b@3", true);
  EXPECT_ANSWER("k: safe: field 'in/x' was renamed to 'in/z' in version 3", "in/x u8 was=w@2", "in/z u8 was=w@2 was=x@3", true);
  EXPECT_ANSWER("k: safe: field 'in' was renamed to 'out' in version 3", "in record\nk v2 in/x", "out record was=in@3\nk v2 out/x", true);
  EXPECT_ANSWER("k: safe: field 'a' allows more: 0 to 3 became 0 to 7", "range=0..3", "range=0..7 before=3:0..3:0xffffffffffffffff", true);
  EXPECT_ANSWER("k: safe: field 'mode' allows more", "range=0..1 names=off,on", "range=0..2 before=3:0..1:0xffffffffffffffff names=off,on,auto", true);
  EXPECT_ANSWER("k: safe: field 'a' became skippable", "range=0..3", "range=0..3 skippable", false);
  EXPECT_ANSWER("k: safe: has another shape since version 3", "k v2 a u8 range=0..3", "k v2 (shape of version 3)\nk v2 a text", true);
  EXPECT_EQ(state::judge("", kBefore).at(0).line(), "k: safe: a new kind, version 2");
}

TEST(Gate, what_needs_a_declaration) {
  EXPECT_ANSWER("k: needs since: field 'c' was added without since(3) and a new version", "k v2 t u64", "k v2 c u8\nk v2 t u64", false);
  EXPECT_ANSWER("k: needs since: field 'c' was added without since(3)", "k v2 t u64", "k v2 c u8 since=2\nk v2 t u64", true);
  EXPECT_ANSWER("k: needs since: field 'b' was renamed to 'c' in version 2", " b u16 mask=0xff", " c u16 mask=0xff was=b@2", true);
  EXPECT_ANSWER("k: needs since: field 'a' allows more", "range=0..3", "range=0..7", false);
  EXPECT_ANSWER("k: needs since: field 'a' allows more", "range=0..3", "range=0..7", true);
  EXPECT_ANSWER("k: needs since: field 'a' allows more", "range=0..3", "range=0..7 before=3:0..2:0xffffffffffffffff", true);  // it was 3
  EXPECT_ANSWER("k: needs since: field 'b' allows more: bits 0xff became 0x1ff", "mask=0xff", "mask=0x1ff", true);
}

TEST(Gate, what_breaks) {
  for (const bool new_version : {false, true}) {
    EXPECT_ANSWER("k: breaks: field 'a' was removed", "k v2 a u8 range=0..3\n", "", new_version);
    EXPECT_ANSWER("k: breaks: field 'b' was removed, or renamed without renamed_from", " b u16", " c u16", new_version);
    EXPECT_ANSWER("k: breaks: field 'a' changed its type from u8 to u16", "a u8", "a u16", new_version);
    EXPECT_ANSWER("k: breaks: field 'a' allows less: 0 to 3 became 1 to 3", "range=0..3", "range=1..3", new_version);
    EXPECT_ANSWER("k: breaks: field 'a' allows less", "range=0..3", "range=0..2", new_version);
    EXPECT_ANSWER("k: breaks: field 'b' allows less: bits 0xff became 0x7f", "mask=0xff", "mask=0x7f", new_version);
    EXPECT_ANSWER("k: breaks: names of field 'mode' changed from off,on to on,off", "off,on", "on,off", new_version);
    EXPECT_ANSWER("k: breaks: the default of field 'b' changed from 7 to 8", "default=7", "default=8", new_version);
    EXPECT_ANSWER("k: breaks: the default of field 'b' changed from 7 to none", " default=7", "", new_version);
    EXPECT_ANSWER("k: breaks: the unit of field 't' changed from \"TSC ticks\" to ns", "\"TSC ticks\"", "ns", new_version);
    EXPECT_ANSWER("k: breaks: the first version of field 'a' changed from none to 2", "range=0..3", "since=2 range=0..3", new_version);
    EXPECT_ANSWER("k: breaks: field 'in/x' forgot its former names", " was=w@2", "", new_version);
  }
  EXPECT_ANSWER("k: breaks: version 2 became 1", "k v2", "k v1", false, true);
  EXPECT_EQ(state::judge(kBefore, "").at(0).line(), "k: breaks: the kind was removed: its records must stay loadable");
  const auto both = state::judge(kBefore, "k v2 a u16 range=0..3\n");
  EXPECT_EQ(both.at(0).reasons.size(), 5u) << both[0].line();  // all of them, not the first
}

// What the gate reads is what lock_text() writes.
TEST(Gate, reads_lock_text) {
  state::Schema schema = state::schema_of<WholeState>();
  const std::string text = state::lock_text(schema);
  EXPECT_NE(text.find("test.whole v5 (skippable)\n"), std::string::npos) << text;
  EXPECT_NE(text.find("test.whole v5 word u32 unit=\"TSC ticks\" mask=0xff default=7\n"), std::string::npos) << text;
  EXPECT_NE(text.find("test.whole v5 name text default=\"a b\" was=label@2 was=title@3\n"), std::string::npos) << text;
  EXPECT_NE(text.find("test.whole v5 special record default={\"a\":4,\"b\":0}\n"), std::string::npos) << text;
  EXPECT_NE(text.find("test.whole v5 key u8[2] default=h'0102'\n"), std::string::npos) << text;
  EXPECT_NE(text.find("test.whole v5 open bool since=3 default=true skippable\n"), std::string::npos) << text;
  EXPECT_TRUE(state::judge(text, text).empty());
  const auto changed = [&](auto change) {
    state::Schema other = schema;
    change(other);
    const auto verdicts = state::judge(text, state::lock_text(other));
    return verdicts.empty() ? Change::same : verdicts[0].change;
  };
  EXPECT_EQ(changed([](auto& s) { s.fields[0].mask = 0x7f; }), Change::breaks);
  EXPECT_EQ(changed([](auto& s) { s.fields[0].unit = "TSC tocks"; }), Change::breaks);
  EXPECT_EQ(changed([](auto& s) { s.fields[9].default_value = cbor::Value("a c"); }), Change::breaks);
  EXPECT_EQ(changed([](auto& s) { s.skippable = false; }), Change::safe);
  EXPECT_EQ(changed([](auto& s) { s.version = 6, s.reshaped = 6, s.fields.pop_back(); }), Change::safe);
  EXPECT_EQ(changed([](auto& s) { s.fields[0].help = "other words"; }), Change::same);
}

}  // namespace
