// One device through its versions: its old files in the new program, its new files in the old one, and what a new
// program can write for an old one. Each program is a namespace; all speak of the kind "test.timer".
#include <gtest/gtest.h>

#include <algorithm>

#include "state/part.hpp"

using namespace stasis;
namespace {

constexpr std::array<std::string_view, 2> kTwoModes{"off", "one_shot"};
constexpr std::array<std::string_view, 3> kThreeModes{"off", "one_shot", "periodic"};

namespace program1 {
struct Channel {
  u8 count = 3;
  bool armed = false;
  static constexpr auto layout() {
    using S = Channel;
    return state::Layout("test.channel", 1, state::field<&S::count>("count"), state::field<&S::armed>("armed"));
  }
};
struct Timer {
  u32 divisor = 1;
  u8 mode = 0;
  u16 scratch = 0;
  std::array<Channel, 2> channel{};
  static constexpr auto layout() {
    using S = Timer;
    return state::Layout("test.timer", 1, state::field<&S::divisor>("divisor"), state::field<&S::mode>("mode").names(kTwoModes),
                         state::field<&S::scratch>("scratch").hex(), state::field<&S::channel>("channel"));
  }
};
}  // namespace program1

// A field more (with another default than zero), one renamed, one that may be skipped, a wider range, and the
// channels' own version 2.
namespace program2 {
struct Channel {
  u8 count = 3;
  bool live = false;
  u8 gate = 1;
  static constexpr auto layout() {
    using S = Channel;
    return state::Layout("test.channel", 3, state::field<&S::count>("count"), state::field<&S::live>("live").renamed_from("armed", 2),
                         state::field<&S::gate>("gate").since(3));
  }
};
struct Timer {
  u32 reload = 1;
  u8 mode = 0;
  u16 scratch = 0;
  std::array<Channel, 2> channel{};
  u16 filter = 0x55;
  u64 statistics = 0;
  static constexpr auto layout() {
    using S = Timer;
    return state::Layout("test.timer", 2, state::field<&S::reload>("reload").renamed_from("divisor", 2),
                         state::field<&S::mode>("mode").names(kThreeModes).widened(2, {.most = 1}), state::field<&S::scratch>("scratch").hex(),
                         state::field<&S::channel>("channel").follows(3, 2), state::field<&S::filter>("filter").hex().since(2).unit("ns"),
                         state::field<&S::statistics>("statistics").since(2).skippable());
  }
};
}  // namespace program2

// Another shape: two fields became one, `scratch` is gone; version 2 can be made again where it was zero.
namespace program3 {
struct Timer {
  using Previous = program2::Timer;
  u64 period = 1;  // reload, and mode above it
  std::array<program2::Channel, 2> channel{};
  u16 filter = 0x55;
  bool tracing = false;
  static constexpr auto layout() {
    using S = Timer;
    return state::Layout("test.timer", 3, state::field<&S::period>("period"), state::field<&S::channel>("channel").follows(3, 2),
                         state::field<&S::filter>("filter").hex().since(2).unit("ns"), state::field<&S::tracing>("tracing").since(3));
  }
  static Timer upgrade(const Previous& old) { return {.period = u64{old.mode} << 32 | old.reload, .channel = old.channel, .filter = old.filter}; }
  static std::expected<Previous, std::string> downgrade(const Timer& now) {
    if (now.tracing) return std::unexpected("field tracing is true, which version 2 has no place for");
    return Previous{.reload = static_cast<u32>(now.period), .mode = static_cast<u8>(now.period >> 32), .channel = now.channel, .filter = now.filter};
  }
};
}  // namespace program3

template <class S>
struct Device : state::Stateful<S> {
  S& s() { return this->s_; }
  cbor::Value record() const { return this->capture(); }
};

state::Problems problems_of(state::Part& part, const cbor::Value& record, const state::Schema& schema, bool with_schema = true) {
  state::Problems problems;
  const auto commit = part.stage(record, {.object = "dev", .version = schema.version, .problems = problems, .schema = with_schema ? &schema : nullptr});
  EXPECT_EQ(commit == nullptr, !problems.empty());
  if (commit) commit();
  return problems;
}

bool says(const state::Problems& problems, std::string_view text, ErrorCode code) {
  return std::ranges::any_of(problems, [&](const Error& e) { return e.code == code && e.message.find(text) != std::string::npos; });
}

std::string all(const state::Problems& problems) {
  std::string out;
  for (const Error& e : problems) out += std::string(name_of(e.code)) + " " + e.text() + "\n";
  return out;
}

// Save, load, save: the same bytes.
template <class S>
void expect_identity(Device<S>& device) {
  const cbor::ByteString bytes = cbor::encode(device.record());
  const auto value = cbor::decode(bytes, "x");
  ASSERT_TRUE(value);
  Device<S> twin;
  ASSERT_TRUE(problems_of(twin, *value, device.schema()).empty());
  EXPECT_EQ(cbor::encode(twin.record()), bytes);
}

template <class S>
state::Schema schema_of() {
  return state::schema_of<S>();
}
const cbor::Value* member(const cbor::Value& record, std::string_view name) { return record.as<cbor::Map>()->find(name); }

Device<program1::Timer>& busy(Device<program1::Timer>& d) {
  d.s() = {.divisor = 7, .mode = 1, .scratch = 0xbeef, .channel = {{{.count = 9, .armed = true}, {}}}};
  return d;
}

TEST(Evolution, an_old_file_in_a_new_program) {
  Device<program1::Timer> old;
  expect_identity(busy(old));
  Device<program2::Timer> now;
  const auto problems = problems_of(now, old.record(), old.schema());
  ASSERT_TRUE(problems.empty()) << all(problems);
  EXPECT_EQ(now.s().reload, 7u);                // renamed
  EXPECT_EQ(now.s().filter, 0x55);              // younger: its default
  EXPECT_TRUE(now.s().channel[0].live);         // renamed in the channels' own version 2
  EXPECT_EQ(now.s().channel[0].gate, 1);
  expect_identity(now);
  Device<program3::Timer> newest;               // through the former shape
  ASSERT_TRUE(problems_of(newest, old.record(), old.schema()).empty());
  EXPECT_EQ(newest.s().period, 1ull << 32 | 7);
  EXPECT_TRUE(newest.s().channel[0].live);
  expect_identity(newest);
}

TEST(Evolution, each_version_has_exactly_its_own_names) {
  Device<program1::Timer> old;
  Device<program2::Timer> now;
  auto young_in_old = old.record();
  young_in_old.as<cbor::Map>()->set("filter", u64{1});
  EXPECT_TRUE(says(problems_of(now, young_in_old, old.schema()), "field 'filter' is unknown here", ErrorCode::bad_file));
  auto old_name_in_new = now.record();
  old_name_in_new.as<cbor::Map>()->set("divisor", u64{1});
  EXPECT_TRUE(says(problems_of(now, old_name_in_new, now.schema()), "field 'divisor' is unknown here", ErrorCode::bad_file));
}

TEST(Evolution, a_new_file_in_an_old_program_is_refused_field_by_field) {
  Device<program2::Timer> now;
  now.s().mode = 2, now.s().channel[1].gate = 0, now.s().statistics = 99;
  Device<program1::Timer> old;
  const auto problems = problems_of(old, now.record(), now.schema());
  EXPECT_TRUE(says(problems, "field 'filter' is unknown here; the record is test.timer version 2, known here is 1", ErrorCode::unsupported)) << all(problems);
  EXPECT_TRUE(says(problems, "field 'channel/1/gate' is unknown here", ErrorCode::unsupported)) << all(problems);
  EXPECT_TRUE(says(problems, "mode is 2 (0x2), allowed is 0 to 1; the record is", ErrorCode::unsupported)) << all(problems);
  EXPECT_FALSE(says(problems, "statistics", ErrorCode::unsupported));  // may be skipped
  EXPECT_FALSE(says(problems, "reload", ErrorCode::unsupported));      // renamed
  EXPECT_FALSE(says(problems, "", ErrorCode::bad_file)) << all(problems);
  EXPECT_EQ(problems.size(), 4u) << all(problems);                     // filter, two gates, mode
  EXPECT_NE(problems.front().hint.find("newer Stasis"), std::string::npos);
  EXPECT_EQ(old.s().divisor, 1u);
}

// What the newer schema does not allow either is damage.
TEST(Evolution, damage_in_a_newer_record_is_told_apart) {
  Device<program2::Timer> now;
  Device<program1::Timer> old;
  auto record = now.record();
  record.as<cbor::Map>()->set("mode", u64{3});
  record.as<cbor::Map>()->set("stray", u64{3});
  std::erase_if(record.as<cbor::Map>()->members(), [](const cbor::Member& m) { return m.first == "scratch"; });
  const auto problems = problems_of(old, record, now.schema());
  EXPECT_TRUE(says(problems, "mode is 3", ErrorCode::bad_file)) << all(problems);
  EXPECT_TRUE(says(problems, "field 'stray' is unknown here", ErrorCode::bad_file)) << all(problems);
  EXPECT_TRUE(says(problems, "field 'scratch' is missing", ErrorCode::bad_file)) << all(problems);
}

state::Schema as_newer(state::Schema schema) {
  schema.version = 9;
  return schema;
}

TEST(Evolution, a_newer_record_of_known_fields_loads) {
  Device<program1::Timer> old, target;
  busy(old);
  const auto problems = problems_of(target, old.record(), as_newer(old.schema()));
  ASSERT_TRUE(problems.empty()) << all(problems);
  EXPECT_EQ(target.record(), old.record());
  EXPECT_TRUE(problems_of(target, old.record(), as_newer(old.schema()), false).empty());  // even with no schema at hand
}

TEST(Evolution, a_rename_and_a_skippable_field_of_a_newer_record) {
  Device<program1::Timer> old;
  state::Schema newer = as_newer(old.schema());
  auto record = busy(old).record();
  auto* map = record.as<cbor::Map>();
  newer.fields[0].name = "reload", newer.fields[0].renamed_from = {{"divisor", 5}};
  newer.fields.push_back({.name = "extra", .type = "u8", .since = 9, .skippable = true});
  for (auto& [name, value] : map->members())
    if (name == "divisor") name = "reload";
  map->set("extra", u64{5});
  Device<program1::Timer> target;
  const auto problems = problems_of(target, record, newer);
  ASSERT_TRUE(problems.empty()) << all(problems);
  EXPECT_EQ(target.s().divisor, 7u);
  newer.fields.back().skippable = false;
  EXPECT_TRUE(says(problems_of(target, record, newer), "field 'extra' is unknown here", ErrorCode::unsupported));
  newer.fields[0].renamed_from = {{"divisor", 1}};  // before our version: then it is no field of ours
  EXPECT_TRUE(says(problems_of(target, record, newer), "field 'divisor' is no longer in it", ErrorCode::unsupported));
  EXPECT_TRUE(says(problems_of(target, record, newer, false), "field 'extra' is unknown here", ErrorCode::unsupported));
}

TEST(Evolution, a_field_that_a_newer_version_removed) {
  Device<program2::Timer> source, target;
  state::Schema newer = as_newer(source.schema());
  auto record = source.record();
  const auto remove = [&](std::string_view name) {
    std::erase_if(newer.fields, [&](const auto& f) { return f.name == name; });
    std::erase_if(record.as<cbor::Map>()->members(), [&](const auto& m) { return m.first == name; });
  };
  remove("statistics");  // skippable: its default
  target.s().statistics = 4;
  EXPECT_TRUE(problems_of(target, record, newer).empty());
  EXPECT_EQ(target.s().statistics, 0u);
  remove("filter");
  EXPECT_TRUE(says(problems_of(target, record, newer), "field 'filter' is no longer in it", ErrorCode::unsupported));
}

TEST(Evolution, other_units_names_and_shapes_of_a_newer_record_are_refused) {
  Device<program2::Timer> source, target;
  source.s().mode = 1;
  state::Schema newer = as_newer(source.schema());
  newer.fields[1].names = {"off", "periodic", "one_shot"};
  newer.fields[4].unit = "us";
  const auto problems = problems_of(target, source.record(), newer);
  EXPECT_TRUE(says(problems, "mode is 1, which means 'periodic' there and 'one_shot' here", ErrorCode::unsupported)) << all(problems);
  EXPECT_TRUE(says(problems, "filter is in 'us', wanted is 'ns'", ErrorCode::unsupported)) << all(problems);
  newer.reshaped = 3;
  EXPECT_TRUE(says(problems_of(target, source.record(), newer), "version 3 gave it another shape", ErrorCode::unsupported));
}

TEST(Evolution, version_1_can_be_written_where_it_loses_nothing) {
  Device<program2::Timer> now;
  now.s() = {.reload = 7, .mode = 1, .scratch = 5, .statistics = 12};
  now.s().channel[1].live = true;
  state::Problems problems;
  const auto written = now.capture_for(1, "dev", problems);
  ASSERT_TRUE(written) << all(problems);
  EXPECT_EQ(written->schema, schema_of<program1::Timer>());
  Device<program1::Timer> old;
  ASSERT_TRUE(problems_of(old, written->value, written->schema).empty());
  EXPECT_EQ(cbor::encode(old.record()), cbor::encode(written->value));
  EXPECT_EQ(old.s().divisor, 7u);
  EXPECT_TRUE(old.s().channel[1].armed);
  Device<program2::Timer> back;
  ASSERT_TRUE(problems_of(back, written->value, written->schema).empty());
  now.s().statistics = 0;  // what may be skipped is gone, nothing else
  EXPECT_EQ(back.record(), now.record());
  const auto same = now.capture_for(2, "dev", problems);
  EXPECT_EQ(same->value, now.record());
}

TEST(Evolution, what_version_1_would_lose_is_named) {
  Device<program2::Timer> now;
  now.s().filter = 0x56, now.s().channel[1].gate = 7, now.s().mode = 2;
  state::Problems problems;
  EXPECT_FALSE(now.capture_for(1, "dev", problems));
  EXPECT_EQ(problems.size(), 3u) << all(problems);
  EXPECT_TRUE(says(problems, "test.timer field filter (since version 2) is 0x56 ns, an older Stasis would lose it (it assumes 0x55 ns)", ErrorCode::unsupported)) << all(problems);
  EXPECT_TRUE(says(problems, "field channel/1/gate (since version 2) is 7, an older Stasis would lose it (it assumes 1)", ErrorCode::unsupported)) << all(problems);
  EXPECT_TRUE(says(problems, "field mode is periodic (2), version 1 allows 0 to 1", ErrorCode::unsupported)) << all(problems);
  EXPECT_EQ(problems.front().object, "dev");
}

TEST(Evolution, a_reshaped_record_is_written_by_its_own_code) {
  Device<program3::Timer> now;
  now.s().period = 1ull << 32 | 7;
  for (const u16 version : {2, 1}) {
    state::Problems problems;
    const auto written = now.capture_for(version, "dev", problems);
    ASSERT_TRUE(written) << all(problems);
    EXPECT_EQ(written->schema, version == 2 ? schema_of<program2::Timer>() : schema_of<program1::Timer>());
    EXPECT_EQ(*member(written->value, version == 2 ? "reload" : "divisor"), cbor::Value(u64{7}));
    Device<program3::Timer> back;
    ASSERT_TRUE(problems_of(back, written->value, written->schema).empty());
    EXPECT_EQ(back.record(), now.record());
  }
  state::Problems problems;  // with the schema alone there is no code
  EXPECT_FALSE(state::write_for(now.schema(), now.record(), 2, "dev", problems));
  EXPECT_TRUE(says(problems, "test.timer has another shape since version 3, and cannot be written as version 2", ErrorCode::unsupported)) << all(problems);
  problems.clear();
  now.s().tracing = true;
  EXPECT_FALSE(now.capture_for(1, "dev", problems));
  EXPECT_TRUE(says(problems, "test.timer field tracing is true, which version 2 has no place for", ErrorCode::unsupported)) << all(problems);
  problems.clear();
  now.s().tracing = false, now.s().filter = 1;  // what the former shape holds and version 1 does not
  EXPECT_FALSE(now.capture_for(1, "dev", problems));
  EXPECT_TRUE(says(problems, "field filter (since version 2) is 0x1 ns", ErrorCode::unsupported)) << all(problems);
}

// Offline: a record that is not what the schema beside it says is not passed on.
TEST(Evolution, a_record_that_breaks_its_own_schema_is_not_written) {
  Device<program2::Timer> now;
  auto record = now.record();
  record.as<cbor::Map>()->set("mode", u64{3});
  record.as<cbor::Map>()->set("stray", u64{3});
  state::Problems problems;
  EXPECT_FALSE(state::write_for(now.schema(), record, 1, "dev", problems));
  EXPECT_TRUE(says(problems, "test.timer field mode is 3, which its own schema does not allow", ErrorCode::bad_file)) << all(problems);
  EXPECT_TRUE(says(problems, "field stray is not in its own schema", ErrorCode::bad_file)) << all(problems);
}

TEST(Evolution, a_release_says_which_versions_it_knows) {
  static constexpr state::KindVersion kKinds[] = {{"test.timer", 1}};
  const state::Release release{"1.0", kKinds};
  Device<program2::Timer> now;
  state::Problems problems;
  const auto out = state::write_for_release(release, "dev", now, problems);
  ASSERT_EQ(out.outcome, state::ForRelease::written) << all(problems);
  EXPECT_EQ(out.record.schema.version, 1);
  state::Schema other{.kind = "test.other", .version = 1, .fields = {}};
  EXPECT_EQ(state::write_for_release(release, "dev/x", other, cbor::Map{}, problems).outcome, state::ForRelease::refused);
  EXPECT_TRUE(says(problems, "Stasis 1.0 does not know kind test.other", ErrorCode::unsupported)) << all(problems);
  other.skippable = true;
  EXPECT_EQ(state::write_for_release(release, "dev/x", other, cbor::Map{}, problems).outcome, state::ForRelease::left_out);
  EXPECT_EQ(problems.size(), 1u);
}

TEST(Evolution, a_part_that_got_a_state_later) {
  struct Console : state::Stateless {
    Console() : Stateless("test.console") {}
  } old;
  state::Schema newer{.kind = "test.console", .version = 2, .fields = {{.name = "column", .type = "u8", .since = 2}}};
  cbor::Map record;
  record.set("column", u64{3});
  EXPECT_TRUE(says(problems_of(old, record, newer), "field 'column' is unknown here", ErrorCode::unsupported));
  newer.fields[0].skippable = true;
  EXPECT_TRUE(problems_of(old, record, newer).empty());
  newer.version = 1;
  EXPECT_TRUE(says(problems_of(old, record, newer), "field 'column' is unknown here", ErrorCode::bad_file));
}

}  // namespace
