// State declarations: what is saved, what is refused, what an older or renamed field becomes.
#include <gtest/gtest.h>

#include "state/part.hpp"

using namespace stasis;
namespace {

struct InnerState {
  u8 a = 1;
  bool b = false;
  static constexpr auto layout() {
    using S = InnerState;
    return state::Layout("test.inner", 1, state::field<&S::a>("a").range(1, 9), state::field<&S::b>("b"));
  }
};

struct OuterState {
  u32 word = 7;
  std::array<u8, 4> raw{};
  std::array<InnerState, 2> inner{};
  state::Fifo<u8, 3> queue{};
  i32 offset = -5;
  u16 late = 0x55;
  static constexpr auto layout() {
    using S = OuterState;
    return state::Layout("test.outer", 3, state::field<&S::word>("word").hex().allow(0xff).unit("ticks"),
                         state::field<&S::raw>("raw"), state::field<&S::inner>("inner"),
                         state::field<&S::queue>("queue"), state::field<&S::offset>("offset"),
                         state::field<&S::late>("late").since(2).renamed_from("tardy", 3));
  }
};

struct Outer : state::Stateful<OuterState> {
  OuterState& s() { return s_; }
};

TEST(State, round_trip_is_identical) {
  Outer a;
  a.s().word = 0x42;
  a.s().raw = {1, 2, 3, 4};
  a.s().inner[1] = {.a = 9, .b = true};
  a.s().queue.push(8);
  a.s().offset = -77;
  const auto bytes = cbor::encode(a.capture());
  const auto back = cbor::decode(bytes, "test");
  ASSERT_TRUE(back);
  Outer b;
  ASSERT_TRUE(state::restore_one(b, "test", *back, 3));
  EXPECT_EQ(cbor::encode(b.capture()), bytes);
  EXPECT_EQ(b.s().offset, -77);
  EXPECT_TRUE(b.s().inner[1].b);
}

TEST(State, every_problem_is_named_and_nothing_changes) {
  Outer a;
  cbor::Value record = a.capture();
  auto* map = record.as<cbor::Map>();
  map->set("word", u64{0x1ff});
  map->set("raw", cbor::ByteString{1});
  map->set("stray", u64{1});
  Outer b;
  const auto refused = state::restore_one(b, "device/x", record, 3);
  ASSERT_FALSE(refused);
  for (const char* part : {"word has reserved bits set (0x1ff), allowed bits are 0xff", "raw holds 1 items", "'stray' is unknown"})
    EXPECT_NE(refused.error().message.find(part), std::string::npos) << refused.error().text();
  EXPECT_EQ(b.s().word, 7u);
}

TEST(State, of_a_million_mistakes_a_thousand_are_told) {
  cbor::Map record;
  for (unsigned i = 0; i < 2000; ++i) record.members().emplace_back(fmt::format("stray{}", i), u64{1});
  Outer a;
  state::Problems problems;
  EXPECT_FALSE(a.stage(record, {.object = "x", .version = 3, .problems = problems}));
  EXPECT_GT(problems.size(), 900u);
  EXPECT_LT(problems.size(), 1100u);
}

TEST(State, older_records_get_defaults_and_renames) {
  Outer a;
  cbor::Map old;
  const cbor::Value whole = a.capture();
  for (const auto& [name, value] : whole.as<cbor::Map>()->members())
    if (name != "late") old.set(name, value);
  Outer b;
  ASSERT_TRUE(state::restore_one(b, "x", old, 1));
  EXPECT_EQ(b.s().late, 0x55);
  EXPECT_FALSE(state::restore_one(b, "x", old, 2));  // version 2 promised it
  old.set("tardy", u64{9});
  ASSERT_TRUE(state::restore_one(b, "x", old, 2));
  EXPECT_EQ(b.s().late, 9);
  EXPECT_FALSE(state::restore_one(b, "x", old, 1));  // which had no such field
  EXPECT_FALSE(state::restore_one(b, "x", old, 3));  // which has it under its present name
}

TEST(State, schema_travels) {
  const state::Schema schema = state::schema_of<OuterState>();
  const auto back = state::schema_from_value(state::to_value(schema), "x");
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, schema);
  Outer a;
  const cbor::Value record = a.capture();
  const auto found = state::find(schema, record, "inner/1/a");
  ASSERT_NE(found.schema, nullptr);
  EXPECT_EQ(state::show(*found.value, *found.schema), "1");
  EXPECT_EQ(state::find(schema, record, "inner/2/a").value, nullptr);
}

TEST(Cbor, refuses_what_we_do_not_write) {
  const std::vector<std::vector<u8>> bad = {{}, {0x18, 5}, {0x5f}, {0xc0, 1}, {0xa2, 0x61, 'b', 1, 0x61, 'a', 1},
                                            {0x82, 1}, {1, 1}, {0x62, 0xc0, 0x80}, {0x9b, 255, 255, 255, 255, 255, 255, 255, 255}, {0xf7}};
  for (const auto& bytes : bad) EXPECT_FALSE(cbor::decode(bytes, "x"));
  std::vector<u8> deep(1000, 0x81);
  deep.push_back(1);
  EXPECT_FALSE(cbor::decode(deep, "x"));
}

}  // namespace
